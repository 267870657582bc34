"""Losses, optimizers, schedules, callbacks and the loop that uses them."""

from . import schedules
from .callbacks import Callback, Checkpoint, EarlyStopping, LearningRate, Training
from .clip import clip_grad_norm, clip_grad_value
from .fit import fit
from .history import History
from .losses import binary_cross_entropy, cross_entropy, huber, mae, mse, sequence_mask
from .metrics import accuracy, mean_absolute_error, perplexity
from .optimizer import Optimizer
from .optimizers import SGD, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LearningRate",
    "Optimizer",
    "RMSprop",
    "Training",
    "accuracy",
    "binary_cross_entropy",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "fit",
    "huber",
    "mae",
    "mean_absolute_error",
    "mse",
    "perplexity",
    "schedules",
    "sequence_mask",
]
