# ruff: noqa: RUF001 - characters that look like others are what these texts are for
"""Texts that tokenizers of other settings give other ids for: what two tokenizers are compared on.

Accents, composed and not; scripts without spaces; capitals without a plain small letter; control
characters and odd spaces; emoji of several code points; special tokens spelled out; long words.
"""

AWKWARD_TEXTS = (
    "",
    " ",
    "The film was NOT good, at all!",
    "Crème brûlée, naïve façade, Ångström; ÅNGSTRÖM, Straße, İstanbul, ﬁne",
    "e\u0301 and \u00e9, n\u0303 and \u00f1",
    "東京は日本の首都です。北京 한국어 ภาษาไทย हिन्दी עברית العربية",
    "tab\tnew\nline\r\nnull\x00bell\x07 nbsp\u00a0thin\u2009zero\u200bwidth\ufeff soft\u00adhyphen",
    "👩‍👩‍👧‍👦 🙂🏽 ½ ① Ⅷ ﷺ \U0001d54f ￥１２３",
    "[CLS] a [SEP] b [MASK] [PAD] [UNK] <s> </s> <mask> <pad> <unk>",
    "don't can't o'clock e-mail user@example.com http://example.com/?q=1&r=2 #tag $3.50 1,000 50%",
    "antidisestablishmentarianism " + "x" * 300,
    "`code` ``quoted'' “curly” ‘single’ «guillemets» – — … ~^|\\/",
)
# The texts together have 77 words; a tokenizer that knows none of them makes a token of most.
_TOKENS_OF_ALL = 64


def awkward_inputs(max_tokens: int) -> list[tuple[str, str | None]]:
    """Each text alone and as either text of a pair; and texts that must be cut.

    Those are longer than ``max_tokens``, and not by much: of two texts that are cut, Transformers
    makes every combination of the parts that are cut off.
    """
    long = " ".join(AWKWARD_TEXTS) * (1 + max_tokens // _TOKENS_OF_ALL)
    shifted = (*AWKWARD_TEXTS[1:], AWKWARD_TEXTS[0])
    alone: list[tuple[str, str | None]] = [(text, None) for text in (*AWKWARD_TEXTS, long)]
    pairs = zip(AWKWARD_TEXTS, shifted, strict=True)
    return [*alone, *pairs, (long, "short"), ("short", long), (long, long)]
