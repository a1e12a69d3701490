"""Words as the search index has them: the same for what is indexed and what is asked.

Letters lose case and accents, English words their endings; scripts that are written without
spaces are taken two characters at a time.
"""

from __future__ import annotations

import re
import unicodedata

# Thai, kana, Chinese characters, Hangul.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+")
_LONGEST = 40
_FEWEST_LEFT = 3  # letters that an ending must leave
_ENDINGS = ("ingly", "edly", "ings", "ing", "ies", "ied", "ed", "es", "ly", "s")

# What questions are made of, and what says nothing about their subject.
_COMMON_WORDS = """
    a about above according across after all also among an and any are as at based be because
    been before being below between both but by can compare could data dataset describe detail
    details did differ difference different do document does each either every explain for from
    give given had has have having he her his how i if in information into is it its kind know
    list main many may me might more most much my name no nor not of on one only or other our
    out over own per please same say several shall she should show since so some such summarise
    summarize tell than that the their them then there these they this those through to too
    under until up upon us use used using was we were what when where whether which while who
    whom whose why will with within without would you your
    aber als am an auch auf aus bei bis das dass dem den der des die diese durch ein eine einem
    einen einer eines es fur hat ich im ist kann mein mit nach nicht oder sich sie sind uber um
    und unser vom von vor warum was welche welcher welches wenn wer werden wie wieviel wird
    wo wurde zu zum zur
    au aux avec ce ces cette comment dans de du elle en est et il la le les leur mais mes mon nos
    notre nous ou par pas pour pourquoi quand que quel quelle quels qui sa se ses sont
    sur un une vos votre
    al como con cual cuales cuando cuanto del donde el ella esta este esto ha hay lo los mas mi
    muy para pero por porque sin sobre su sus te una uno y ya"""
_COMMON = frozenset(_COMMON_WORDS.split())


def index_words(text: str) -> list[str]:
    """All words of a text, in order."""
    if text.isascii():
        return [_stem(word) for word in _ASCII_TOKEN.findall(text.lower())]
    found: list[str] = []
    for token in _TOKEN.findall(_folded(text)):
        if _is_unspaced(token):
            found.extend(token[at : at + 2] for at in range(max(1, len(token) - 1)))
        else:
            found.append(_stem(token))
    return found


def asked_words(question: str) -> list[str]:
    """The words of a question that say what it is about, each once."""
    folded = question.lower() if question.isascii() else _folded(question)
    telling = [
        token
        for token in _TOKEN.findall(folded)
        if token not in _COMMON and (len(token) > 1 or _is_unspaced(token))
    ]
    return list(dict.fromkeys(index_words(" ".join(telling))))


def _folded(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in apart if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", plain)


def _is_unspaced(token: str) -> bool:
    return token[0] >= "\u0e00" and re.match(f"[{_UNSPACED}]", token) is not None


def _stem(word: str) -> str:
    if len(word) <= _FEWEST_LEFT or word[0].isdigit():
        return word[:_LONGEST]
    for ending in _ENDINGS:
        left = word[: -len(ending)]
        if word.endswith(ending) and len(left) >= _FEWEST_LEFT:
            if ending == "s" and left[-1] in "su":
                return word[:_LONGEST]
            if ending == "es" and not left.endswith(("s", "x", "z", "ch", "sh")):
                left += "e"
            left = left + "y" if ending in ("ies", "ied") else left
            # stopped, stopping → stop; price, prices, priced → pric
            return _without_e(_single(left))[:_LONGEST]
    return _without_e(word)[:_LONGEST]


def _single(left: str) -> str:
    return (
        left[:-1] if len(left) > 3 and left[-1] == left[-2] and left[-1] not in "lsz" else left
    )


def _without_e(word: str) -> str:
    return word[:-1] if len(word) > _FEWEST_LEFT + 1 and word.endswith("e") else word
