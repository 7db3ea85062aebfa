"""Hugging Face folders in and out, without torch: a file and a table a family."""

from bert_jax.interop import albert, bert, electra, roberta
from bert_jax.interop.family import Family

FAMILIES: tuple[Family, ...] = (bert.BERT, roberta.ROBERTA, electra.ELECTRA, albert.ALBERT)
