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
_LONG = " ".join(AWKWARD_TEXTS) * 8


def awkward_inputs() -> list[tuple[str, str | None]]:
    """Each text alone and as either text of a pair; and texts that must be cut."""
    turned = (*AWKWARD_TEXTS[1:], AWKWARD_TEXTS[0])
    alone: list[tuple[str, str | None]] = [(text, None) for text in (*AWKWARD_TEXTS, _LONG)]
    pairs = zip(AWKWARD_TEXTS, turned, strict=True)
    return [*alone, *pairs, (_LONG, "short"), ("short", _LONG), (_LONG, _LONG)]
