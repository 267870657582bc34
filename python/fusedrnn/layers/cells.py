"""RNN, LSTM and GRU: the cells that a stack of recurrent layers can have."""

from __future__ import annotations

from typing import Any

from ..functional import rnn_cell
from ..init import Init
from .recurrent import Recurrent
from .registry import register_layer
from .variants import read_variant


@register_layer
class RNN(Recurrent):
    r"""Elman network, with tanh or relu (Elman 1990).

    .. math::

        h(t) = \tanh(b_{ih} + W_{ih}\, x(t) + b_{hh} + W_{hh}\, h(t-1)).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        Layers on top of each other; each reads the whole output of the one below.
    bias : bool
        Whether to have bias_ih and bias_hh.
    batch_first : bool
        x and y are (B, T, ...) if True (the default), else (T, B, ...). States are (layers, B, H) in both.
    dropout : float
        Probability with which, in training, outputs between layers are zeroed. May be changed. With one layer there is
        nothing between: a warning says so.
    bidirectional : bool
        A second direction reads each sample's valid steps from the end; y is (..., 2 H).
    nonlinearity : {"tanh", "relu"}
        The activation.
    dtype : {"float32", "float64"}
        Type of parameters, inputs and outputs.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    seed : int, optional
        Seed for the weights and for dropout: the same seed gives the same bits.
    init : {"default", "torch", "spectral"} or fusedrnn.init.RecurrentInit
        default: Glorot for input weights, orthogonal for recurrent ones. torch: U(-1/sqrt(H), 1/sqrt(H)). spectral:
        Glorot, recurrent weights with a spectral norm of at most 1. A ``RecurrentInit`` sets each part.
    compute_dtype : {"bfloat16", "float16"}, optional
        What the products multiply: weights, x, h and, in training, gate gradients rounded to bfloat16 (8 bits). Sums,
        gates, h, c, parameters and gradients stay float32, which ``dtype`` must be. Meant for processors that multiply
        bfloat16 (AVX512_BF16); emulated it pays only where reading the weights takes the time (small batches,
        H >= 256). Outputs differ from float32's by about 1 %. RuntimeError without AVX-512 or NEON. On cuda, where it
        may be float16 as well, inputs, outputs, states and gradients are rounded too, as under ``torch.autocast``.
    activations : sequence of one, optional
        The function in the place of ``nonlinearity``: "sigmoid", "tanh", "relu", "affine", "leaky_relu",
        "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu", "softsign" or "softplus", as ONNX defines them; or
        (name, alpha, beta) with its parameters. On the cpu only, as is ``clip``.
    clip : float, optional
        What the function reads is clipped to [-clip, clip]; outside the derivative is 0.
    recurrent_dropout : float
        Probability with which, in training, a value of h is dropped where W_hh reads it, and the others scaled by
        1 / (1 - p): one mask a sequence (Gal & Ghahramani 2016). On the cpu only, as is all that follows.
    zoneout : float
        Probability with which, in training, a value of h stays what it was in the step before; in inference the mean
        of both is taken (Krueger et al. 2017).

    Attributes
    ----------
    params : dict
        weight_ih_l0 (G*H, I), weight_hh_l0 (G*H, H), and with ``bias`` bias_ih_l0 and bias_hh_l0 (G*H,), with G = 1 (4
        in an LSTM, 3 in a GRU); those of the second direction end in _l0_reverse, those of the next layer in _l1.

    Raises
    ------
    ValueError
        If a size is not positive, a number outside its range or a name unknown.
    TypeError
        If a size is not an integer, or ``dtype`` neither float32 nor float64.
    RuntimeError
        If ``device`` or ``compute_dtype`` is not available.
    """

    _fixed = Recurrent._fixed | {"nonlinearity"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
        init: Init = "default",
        compute_dtype: str | None = None,
        activations: Any = None,
        clip: float | None = None,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
    ) -> None:
        self.nonlinearity = nonlinearity
        rnn_cell(self.op, nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            device=device,
            seed=seed,
            init=init,
            compute_dtype=compute_dtype,
            variant=read_variant(
                self.op,
                "rnn",
                activations,
                clip,
                recurrent_dropout=recurrent_dropout,
                zoneout=zoneout,
            ),
        )

    @property
    def _books(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.nonlinearity,)

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return rnn_cell(self.op, self.nonlinearity)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().config(), "nonlinearity": self.nonlinearity}


@register_layer
class LSTM(Recurrent):
    r"""Long short-term memory with gates i, f, g, o (Hochreiter & Schmidhuber 1997; forget gate Gers et al. 2000).

    .. math::

        i, f, o &= \sigma(b + W_{ih}\, x(t) + W_{hh}\, h(t-1)), \\
        g &= \tanh(b + W_{ih}\, x(t) + W_{hh}\, h(t-1)), \\
        c(t) &= f \odot c(t-1) + i \odot g, \\
        h(t) &= o \odot \tanh(c(t)),

    each gate with rows of its own of W_ih and W_hh, and with b the sum of bias_ih and bias_hh. The forget gate's bias
    starts at 1. The state is the pair (h, c).

    Parameters as in :class:`RNN`, without nonlinearity, and:

    Parameters
    ----------
    activations : sequence of three, optional
        The functions of i, f and o, of g, and of c in ``o tanh(c)``; see :class:`RNN`. As all that follows on the cpu
        only.
    clip : float, optional
        What i, f, o and g read is clipped to [-clip, clip], as ONNX's ``clip`` does it.
    coupled : bool
        f = 1 - i; the forget gate's weights are there, but unused (ONNX ``input_forget``; Greff et al. 2017).
    peephole : bool
        i and f see c(t-1), and o sees c(t), by the weights weight_peephole_l0 (3*H,) of i, f, o, which start at 0
        (Gers & Schmidhuber 2000).
    proj_size : int
        P, less than H: ``h(t) = W_hr (o * tanh(c(t)))``, with weight_hr_l0 (P, H), as in torch (Sak, Senior & Beaufays
        2014). y, h and what W_hh reads then have P features, c has H. Neither with ``peephole`` nor with what
        follows. 0: no projection.
    recurrent_dropout : float
        Probability with which, in training, a value of h is dropped where W_hh reads it, and the others scaled by
        1 / (1 - p): one mask a sequence (Gal & Ghahramani 2016). On the cpu only, as is all that follows.
    recurrent_dropout_on : {"h", "candidate"}
        "candidate": drop values of g instead, anew at every step (Semeniuta, Severyn & Barth 2016).
    zoneout : float or pair
        Probability with which, in training, a value of h, or of c, stays what it was in the step before; in inference
        the mean of both is taken (Krueger et al. 2017). A pair is for h and for c. Not with ``peephole``.
    layer_norm : bool
        What W_ih and W_hh make is normalised over all four gates, each before it is added, and c where h reads it (Ba,
        Kiros & Hinton 2016): ``LN(W_ih x) + LN(W_hh h)`` instead of the sums above, and ``h = o tanh(LN(c))``, with
        ``LN(v) = gain (v - mean(v)) / sqrt(var(v) + 1e-5) + bias``. The gains are weight_ln_ih_l0 and weight_ln_hh_l0
        (4*H,) and weight_ln_c_l0 (H,), which start at 1, the biases bias_ih_l0, bias_hh_l0 and bias_ln_c_l0 (H,). Not
        with ``peephole``, ``proj_size``, ``zoneout`` or ``recurrent_dropout`` of h.
    """

    _cell = "lstm"
    _books = ("sigmoid", "tanh", "tanh")
    _has_cell_state = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
        init: Init = "default",
        compute_dtype: str | None = None,
        activations: Any = None,
        clip: float | None = None,
        coupled: bool = False,
        peephole: bool = False,
        proj_size: int = 0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "h",
        zoneout: Any = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            device=device,
            seed=seed,
            init=init,
            compute_dtype=compute_dtype,
            variant=read_variant(
                self.op,
                "lstm",
                activations,
                clip,
                coupled=coupled,
                peephole=peephole,
                recurrent_dropout=recurrent_dropout,
                recurrent_dropout_on=recurrent_dropout_on,
                zoneout=zoneout,
                layer_norm=layer_norm,
            ),
            proj_size=proj_size,
        )


@register_layer
class GRU(Recurrent):
    r"""Gated recurrent unit with gates r, z, n; reset after the product, as in torch and cuDNN (Cho et al. 2014).

    .. math::

        r, z &= \sigma(b + W_{ih}\, x(t) + W_{hh}\, h(t-1)), \\
        n &= \tanh(b_{in} + W_{in}\, x(t) + r \odot (b_{hn} + W_{hn}\, h(t-1))), \\
        h(t) &= (1 - z) \odot n + z \odot h(t-1).

    Parameters as in :class:`RNN`, without nonlinearity, and:

    Parameters
    ----------
    activations : sequence of two, optional
        The functions of r and z, and of n; see :class:`RNN`. On the cpu only, as is ``clip``.
    clip : float, optional
        What r, z and n read is clipped to [-clip, clip], as ONNX's ``clip`` does it.
    reset_after : bool
        False: r multiplies the h that W_hn reads, ``n = tanh(b_in + W_in x(t) + b_hn + W_hn (r * h(t-1)))``, as Cho et
        al. have it, and Keras by ``reset_after=False`` and ONNX by ``linear_before_reset=0``. A step then has two
        products, one behind the other. On the cpu only.
    recurrent_dropout : float
        Probability with which, in training, a value of h is dropped where W_hh reads it, and the others scaled by
        1 / (1 - p): one mask a sequence (Gal & Ghahramani 2016).
    recurrent_dropout_on : {"h", "candidate"}
        "candidate": drop values of n instead, anew at every step (Semeniuta, Severyn & Barth 2016).
    zoneout : float
        Probability with which, in training, a value of h stays what it was in the step before; in inference the mean
        of both is taken (Krueger et al. 2017).
    layer_norm : bool
        What W_ih and W_hh make is normalised, for r and z together and for n (Ba, Kiros & Hinton 2016):
        ``LN(W_ih x) + LN(W_hh h)`` in r and z, ``n = tanh(LN(W_in x) + r LN(W_hn h))``; LN as in :class:`LSTM`. The
        gains are weight_ln_ih_l0 and weight_ln_hh_l0 (3*H,), the biases bias_ih_l0 and bias_hh_l0. Not with
        ``reset_after=False``, ``zoneout`` or ``recurrent_dropout`` of h.
    """

    _cell = "gru"
    _books = ("sigmoid", "tanh")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
        init: Init = "default",
        compute_dtype: str | None = None,
        activations: Any = None,
        clip: float | None = None,
        reset_after: bool = True,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_on: str = "h",
        zoneout: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            device=device,
            seed=seed,
            init=init,
            compute_dtype=compute_dtype,
            variant=read_variant(
                self.op,
                "gru",
                activations,
                clip,
                reset_after=reset_after,
                recurrent_dropout=recurrent_dropout,
                recurrent_dropout_on=recurrent_dropout_on,
                zoneout=zoneout,
                layer_norm=layer_norm,
            ),
        )
