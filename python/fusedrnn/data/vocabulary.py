"""Text as integers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_integer, described, flag, positive_int
from .preprocessor import Preprocessor

UNITS = ("word", "character")
UNKNOWN = "<unknown>"
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # "don't" is one word, each mark of punctuation another


class Vocabulary(Preprocessor):
    """Number the words or characters of texts, the most frequent first; 0 stands for all that is not known.

    Parameters
    ----------
    unit : {"word", "character"}
        What texts are cut into; a word is letters and digits, or one mark of punctuation. A text that is cut already,
        a list of str, is taken as it is.
    lower : bool
        Whether upper case counts as lower case.
    min_count : int
        What occurs less often is not known.
    max_size : int, optional
        Largest number of tokens, 0 and the specials included; the most frequent ones stay.
    specials : sequence of str
        Tokens from number 1 on that no text has to have, such as ("<start>", "<end>").

    Attributes
    ----------
    tokens : list of str
        By number; empty before ``fit``.

    Examples
    --------
    >>> vocabulary = Vocabulary(min_count=2)
    >>> x = vocabulary.fit_transform(reviews)  # a list of integer arrays, as fit takes them
    >>> model = SequenceToVector(GRU(16, 64), 2, embedding=Embedding(len(vocabulary), 16))
    """

    def __init__(
        self,
        unit: str = "word",
        *,
        lower: bool = False,
        min_count: int = 1,
        max_size: int | None = None,
        specials: Sequence[str] = (),
    ) -> None:
        if unit not in UNITS:
            raise ValueError(f"Vocabulary: unit is {unit!r}; expected one of {', '.join(map(repr, UNITS))}")
        if isinstance(specials, str) or not all(isinstance(each, str) for each in specials):
            raise TypeError(f"Vocabulary: specials is {specials!r}; expected a sequence of str")
        self.unit, self.lower = unit, flag("Vocabulary", "lower", lower)
        self.min_count = positive_int("Vocabulary", "min_count", min_count)
        self.max_size = None if max_size is None else positive_int("Vocabulary", "max_size", max_size)
        self.specials = tuple(specials)
        if len(set(self._fixed)) != len(self._fixed) or (self.max_size or len(self._fixed)) < len(self._fixed):
            raise ValueError(
                f"Vocabulary: specials is {self.specials}; expected tokens that differ, of which max_size leaves room"
            )
        self.tokens: list[str] = []
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._numbers

    def __getitem__(self, token: str) -> int:
        """Return the number of a token, 0 if it is not known."""
        return self._numbers.get(token, 0)

    def fit(self, data: Any) -> Vocabulary:
        """Learn the tokens of texts, a list of str or of lists of str."""
        counts: Counter[str] = Counter()
        for text in _texts(data):
            counts.update(self._cut(text))
        for token in self._fixed:
            counts.pop(token, None)
        ranked = sorted((token for token in counts if counts[token] >= self.min_count), key=lambda t: (-counts[t], t))
        self._set([*self._fixed, *ranked][: self.max_size])
        return self

    def transform(self, data: Any) -> list[NDArray[np.int64]]:
        """Return the numbers of the tokens of each text, a list of arrays (T_n,)."""
        if not self.tokens:
            raise self._not_fitted()
        return [np.array([self[token] for token in self._cut(text)], np.int64) for text in _texts(data)]

    def inverse_transform(self, data: Any) -> list[str]:
        """Return the text of each array of numbers: words with a space between them, or characters."""
        if not self.tokens:
            raise self._not_fitted()
        joint = " " if self.unit == "word" else ""
        return [
            joint.join(self.tokens[number] for number in self._checked(index, row)) for index, row in enumerate(data)
        ]

    def config(self) -> dict[str, Any]:
        """Return the options and the tokens."""
        if not self.tokens:
            raise self._not_fitted()
        return {
            "unit": self.unit,
            "lower": self.lower,
            "min_count": self.min_count,
            "max_size": self.max_size,
            "specials": list(self.specials),
            "tokens": self.tokens[len(self._fixed) :],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Vocabulary:
        """Make one from what ``config`` returned."""
        options = dict(config)
        tokens = options.pop("tokens")
        vocabulary = cls(**options)
        every = [*vocabulary._fixed, *tokens]
        if not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens):
            raise ValueError("Vocabulary: tokens is malformed; expected a list of str")
        if len(set(every)) != len(every):
            raise ValueError("Vocabulary: a token occurs twice")
        vocabulary._set(every)
        return vocabulary

    def __repr__(self) -> str:
        return f"Vocabulary({self.unit!r}, {len(self)} tokens)"

    @property
    def _fixed(self) -> tuple[str, ...]:
        return (UNKNOWN, *self.specials)

    def _set(self, tokens: list[str]) -> None:
        self.tokens, self._numbers = tokens, {token: number for number, token in enumerate(tokens)}

    def _cut(self, text: Any) -> Sequence[str]:
        if not isinstance(text, str):
            tokens: list[str] = [str(token) for token in text]
            return [token.lower() for token in tokens] if self.lower else tokens
        text = text.lower() if self.lower else text
        return text if self.unit == "character" else _WORD.findall(text)

    def _checked(self, index: int, row: Any) -> list[int]:
        numbers = as_integer("Vocabulary", f"data[{index}]", row)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(self):
            raise ValueError(
                f"Vocabulary: data[{index}] goes from {numbers.min()} to {numbers.max()}; "
                f"expected 0 <= token < {len(self)}"
            )
        listed: list[int] = numbers.ravel().tolist()
        return listed


def is_text(data: Any) -> bool:
    """Return whether data is a list, array or column of texts, cut or not."""
    if isinstance(data, (str, bytes)) or not hasattr(data, "__len__") or not len(data):
        return False
    if getattr(data, "ndim", 1) != 1 or not all(isinstance(each, str) or _is_cut(each) for each in data):
        return False
    return any(isinstance(each, str) or len(each) for each in data)  # lists of nothing may be sequences of numbers


def missing_text(data: Any) -> int | None:
    """Return which element of a list or column of texts is None or NaN; None if none is, or it has no texts."""
    if isinstance(data, (str, bytes)) or not hasattr(data, "__len__") or getattr(data, "ndim", 1) != 1:
        return None
    missing = [index for index, each in enumerate(data) if each is None or (isinstance(each, float) and each != each)]
    return missing[0] if missing and any(isinstance(each, str) for each in data) else None


def _is_cut(text: Any) -> bool:
    return isinstance(text, (list, tuple)) and all(isinstance(token, str) for token in text)


def _texts(data: Any) -> list[Any]:
    if isinstance(data, (str, bytes)) or not hasattr(data, "__iter__"):
        raise TypeError(f"Vocabulary: data is {described(data)}; expected a list of texts")
    texts = list(data)
    for index, text in enumerate(texts):
        if not isinstance(text, str) and not _is_cut(text):
            raise TypeError(f"Vocabulary: data[{index}] is {described(text)}; expected a str, or a list of str")
    return texts
