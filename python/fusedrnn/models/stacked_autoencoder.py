"""Vectors through a narrow layer and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, flag, positive_int, seed_sequence
from ..arrays.namespace import from_host, namespace_of, on_gpu
from ..layers import Activation, Dropout, GaussianNoise, Layer, Linear, Sequential, Tape, register_layer
from ..layers.activation import FUNCTIONS
from ..layers.calling import run
from ..layers.protocol import Shape, output_of
from ..layers.tied import TiedLinear
from .model import Model

_NEAREST = 1e-7  # a mean activation of exactly 0 or 1 would have an infinite divergence


@register_layer
class StackedAutoencoder(Model):
    """Dense layers down to a code and, symmetrically, up again, trained to return their input.

    Hinton & Salakhutdinov 2006. Train with ``fit(model, x, x, ...)``, after ``pretrain`` if you like. With noise or
    dropout it is a denoising autoencoder (Vincent et al. 2010).

    Parameters
    ----------
    sizes : sequence of int
        Features of the input, of the hidden layers and of the code: (64, 32, 8) is the network 64-32-8-32-64.
    activation, code_activation, output_activation : str
        Activations of the hidden layers, the code and the output; see ``Activation``.
    tied : bool
        Whether the upper half uses the weights of the lower half, transposed, and has only biases of its own.
    noise : float
        Standard deviation of normal noise on the input, in training.
    dropout : float
        Probability with which an input feature is zeroed, in training.
    sparsity : float
        Weight of a penalty on the code. ``backward`` adds its gradient, and ``fit`` its value to the loss.
    sparsity_target : float, optional
        Without it, the penalty is the sum of the code's absolute values. With it, the Kullback-Leibler divergence of
        the mean activations from this one, which is in (0, 1); the code's activation must be the sigmoid.
    dtype : {"float32", "float64"}
        Type of parameters, inputs and outputs.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    seed : int, optional
        Seed for weights, noise and dropout.
    """

    _fixed = frozenset(
        {"sizes", "activation", "code_activation", "output_activation", "tied", "noise", "dropout", "dtype"}
    )

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        code_activation: str = "identity",
        output_activation: str = "identity",
        tied: bool = False,
        noise: float = 0.0,
        dropout: float = 0.0,
        sparsity: float = 0.0,
        sparsity_target: float | None = None,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        self.sizes = tuple(positive_int(self.op, "sizes", size) for size in sizes)
        depth = len(self.sizes) - 1
        if depth < 1:
            raise ValueError(f"{self.op}: sizes is {self.sizes}; expected those of the input, the layers and the code")
        names = {"activation": activation, "code_activation": code_activation, "output_activation": output_activation}
        for argument, name in names.items():  # each, even where there is no such layer
            if name not in FUNCTIONS:
                known = ", ".join(map(repr, FUNCTIONS))
                raise ValueError(f"{self.op}: {argument} is {name!r}; expected one of {known}")
        self.activation, self.code_activation, self.output_activation = activation, code_activation, output_activation
        self.tied = flag(self.op, "tied", tied)
        self._sparsity = _Sparsity(self.op, sparsity, sparsity_target, code_activation)
        seeds = seed_sequence(self.op, seed).generate_state(2 * depth + 2).tolist()

        pairs = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        at = {"dtype": dtype, "device": device}
        down = [Linear(*pair, **at, seed=s) for pair, s in zip(pairs, seeds, strict=False)]
        up: list[Layer] = [
            TiedLinear(linear) if tied else Linear(linear.out_features, linear.in_features, **at, seed=s)
            for linear, s in zip(reversed(down), seeds[depth:], strict=False)
        ]
        self._corruptions: list[Layer] = []
        noise_layer = GaussianNoise(noise, **at, seed=seeds[-1])
        dropout_layer = Dropout(dropout, device=device, seed=seeds[-2])
        self._corruptions += [noise_layer] * (noise > 0) + [dropout_layer] * (dropout > 0)
        self.noise, self.dropout = noise_layer.std, dropout_layer.p
        self.encoder = _activated(down, [activation] * (depth - 1) + [code_activation])
        self.decoder = _activated(up, [activation] * (depth - 1) + [output_activation])
        corruption = Sequential(*self._corruptions) if self._corruptions else None
        super().__init__(corruption=corruption, encoder=self.encoder, decoder=self.decoder)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "sizes": list(self.sizes),
            "activation": self.activation,
            "code_activation": self.code_activation,
            "output_activation": self.output_activation,
            "tied": self.tied,
            "noise": self.noise,
            "dropout": self.dropout,
            "sparsity": self._sparsity.weight,
            "sparsity_target": self._sparsity.target,
            "dtype": self.dtype.name,
        }

    def __call__(self, x: Any) -> Array:
        """Compute the reconstruction of x (..., sizes[0]), without noise."""
        return self._run(False, x)[0]

    def encode(self, x: Any) -> Array:
        """Compute the codes (..., sizes[-1]) of x (..., sizes[0])."""
        code: Array = self.encoder(x)
        return code

    def decode(self, code: Any) -> Array:
        """Compute the reconstructions (..., sizes[0]) of codes (..., sizes[-1])."""
        y: Array = self.decoder(code)
        return y

    def reconstruction_error(self, x: Any) -> Array:
        """Compute the mean squared error (...) of each sample's reconstruction."""
        difference = self(x) - as_real(self.op, "x", x, self.dtype, self.xp)
        error: Array = self.xp.square(difference).mean(axis=-1)
        return error

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Compute (y, tape) from x (..., sizes[0]) in training mode: with noise and dropout."""
        return self._run(True, x)

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Return dx for dy, with the gradient of the sparsity penalty."""
        corruption_tape, encoder_tape, code, decoder_tape = self._saved(tape)
        dcode = self.decoder.backward(decoder_tape, dy)
        assert dcode is not None
        dx: Array | None = self.encoder.backward(encoder_tape, dcode + self._sparsity.gradient(code))
        corruption = self._child("corruption")
        if corruption is not None:
            dx = corruption.backward(corruption_tape, dx)
        assert dx is not None
        return dx

    def penalty(self, tape: Tape) -> float:
        """Return the sparsity penalty of a forward call, whose gradient is a part of ``backward``."""
        return self._sparsity.value(self._saved(tape)[2])

    def pretrain(self, x: Any, **fit_arguments: Any) -> list[Any]:
        """Train layer by layer: each pair of layers alone learns to return what the layers below it make of x.

        Bengio et al. 2007. Noise and dropout act on the input of each pair; the sparsity penalty does not act.

        Parameters
        ----------
        x : array_like (N, sizes[0])
            Samples, of any device.
        **fit_arguments
            As ``fusedrnn.fit`` takes them: epochs, batch_size, loss, optimizer (by name or a function) ...

        Returns
        -------
        list of History
            One for each pair, the outermost first.
        """
        from ..training import fit

        codes, histories = x if on_gpu(x) else from_host(self.xp, np.asarray(x)), []
        down, up = list(self.encoder), list(self.decoder)
        for at in range(0, len(down), 2):
            back = len(up) - 2 - at
            lower = down[at : at + 2]
            pair = Sequential(*self._corruptions, *lower, *up[back : back + 2])
            histories.append(fit(pair, codes, codes, **fit_arguments))
            codes = Sequential(*lower)(codes)
        return histories

    def input_shape(self) -> Shape:
        """Return (..., sizes[0])."""
        return "...", self.sizes[0]

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for corruption and encoder, the code's shape for the decoder."""
        inputs = dict.fromkeys(self._children, x)
        return inputs | {"decoder": output_of(self.encoder, x)}

    def _run(self, training: bool, x: Any) -> tuple[Array, Tape]:
        corruption_tape = None
        corruption = self._child("corruption")
        if corruption is not None:
            x, corruption_tape = run(corruption, training, x)
        code, encoder_tape = run(self.encoder, training, x)
        y, decoder_tape = run(self.decoder, training, code)
        return y, Tape(self, (corruption_tape, encoder_tape, code, decoder_tape))


def _activated(layers: Sequence[Layer], functions: Sequence[str]) -> Sequential:
    """Return the layers, each followed by its activation: "0.weight", "2.weight" ..., as in torch."""
    for name in functions:
        if name not in FUNCTIONS:
            raise ValueError(f"StackedAutoencoder: activation is {name!r}; expected one of {', '.join(FUNCTIONS)}")
    pairs = zip(layers, functions, strict=True)
    return Sequential(*(part for layer, name in pairs for part in (layer, Activation(name, dtype=layer.dtype))))


class _Sparsity:
    """weight * R(code) with its gradient, a mean over the samples.

    R is the sum of the absolute values, or with a target r the sum over the units of KL(r || m) =
    r log(r/m) + (1-r) log((1-r)/(1-m)), with a unit's mean activation m (Ng 2011, sparse autoencoder).
    """

    def __init__(self, op: str, weight: float, target: float | None, activation: str) -> None:
        if not weight >= 0:
            raise ValueError(f"{op}: sparsity is {weight}; expected a number >= 0")
        if target is not None and not 0 < target < 1:
            raise ValueError(f"{op}: sparsity_target is {target}; expected a number in (0, 1)")
        if target is not None and activation != "sigmoid":
            raise ValueError(f"{op}: code_activation is {activation!r}; expected 'sigmoid' with a sparsity_target")
        self.weight, self.target = float(weight), target

    def value(self, code: Array) -> float:
        """Return the penalty of a code (..., C)."""
        rows = code.reshape(-1, code.shape[-1])
        if self.weight == 0 or len(rows) == 0:
            return 0.0
        xp = namespace_of(rows)
        if self.target is None:
            return self.weight * float(xp.abs(rows).sum(dtype=np.float64)) / len(rows)
        m, r = self._means(rows), self.target
        return self.weight * float((r * xp.log(r / m) + (1 - r) * xp.log((1 - r) / (1 - m))).sum())

    def gradient(self, code: Array) -> Array:
        """Return the penalty's gradient, shaped as the code."""
        rows, xp = code.reshape(-1, code.shape[-1]), namespace_of(code)
        gradient: Array
        if self.weight == 0 or len(rows) == 0:
            gradient = xp.zeros_like(code)
            return gradient
        scale = self.weight / len(rows)
        if self.target is None:
            gradient = xp.sign(code) * code.dtype.type(scale)
            return gradient
        m, r = self._means(rows), self.target
        slope = (scale * ((1 - r) / (1 - m) - r / m)).astype(code.dtype)
        gradient = xp.broadcast_to(slope, code.shape)
        return gradient

    def _means(self, rows: Array) -> Array:
        means: Array = namespace_of(rows).clip(rows.mean(axis=0, dtype=np.float64), _NEAREST, 1 - _NEAREST)
        return means
