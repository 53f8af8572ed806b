# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: RUF001 (the letters of other scripts are meant)
"""Random sentences for speech synthesisers: natural phrasing, and words of every phone pair."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from backend.speech.phones import from_arpabet


def _items(text: str) -> tuple[str, ...]:
    return tuple(text.strip().replace("\n", "").split("|"))


_PEOPLE = _items("""
my mother|your brother|Bob|Peggy|a young woman|the old farmer|every child|our new neighbour|
Mister Webber|Doctor Thompson|both of the boys|someone from Boston|the five women|
a famous painter|Sheila|the judge|whoever found it|nobody here|the pilot|George and Vivian|
his uncle Hugh|two of them|the choir
""")
_VERBS = _items("""
bought|moved|pushed|forgot|watched|painted|followed|measured|wrapped up|threw away|chose|
carried|believed in|described|shoved|borrowed|joined|washed|chewed|imagined|opened|
finally found|never liked|grabbed|could not save|wanted to buy|began to fix|promised me|
swam with|laughed about
""")
_ADJECTIVES = _items("""
big|purple|beautiful|huge|warm|empty|fresh|strange|thick|smooth|wooden|cheap|royal|foggy|narrow|
lovely|broken|yellow|quiet|vivid|rather short|very bumpy|azure|weird|humble|public
""")
_THINGS = _items("""
box|maple tree|paper boat|blue umbrella|bowl of soup|garage|piece of cheese|fishing village|
wristwatch|bathroom mirror|leather shoe|treasure|phone number|wolf|jewel|television|
cup of coffee|measure|bridge|church|young puppy|voice|cloud|bathtub|fireplace|pillow|movie|
vegetable|oyster|garden hose|mammoth
""")
_PLACES = _items("""
in the basement|by the river|on the way home|under the bridge|above the shop|near Birmingham|
at five in the morning|before breakfast|after the storm|for the first time|with a smile|
without a word|in the middle of the room|last February|on Wednesday|through the window|
over there|at your house|beyond the woods|during the whole movie
""")
_ASIDES = _items("""
Oh well|Of course|You know|To be honest|By the way|Please|Wow|Hmm|Maybe|Believe me|Yes|No|
Whatever you say|Good morning|Ouch|Above all|In my view|First of all
""")
_TEMPLATES = _items("""
{P} {V} the {A} {T} {L}.|{P} {V} a {T}, but {P} {V} the {T}.|Why would {P} buy {n} {W}?|
{I}, {P} {V} the {A} {T}.|How many of the {A} boats did {P} see {L}?|There are {n} {W} {L}.|
What a {A} {T}!|When {P} {V} the {T}, {P} {V} it too.|Have you ever been {L}, {I}?|
{I}! Come over here and help me move the {T}.|The {A} {T} and the {A} {T} {L} belong to {P}.|
If {P} asks, tell them that {W} {V} {W} {L}.|{W}, {W}, {W} and {W}.|
{P} said: {I}, where is my {T}?|Could you put the {T} {L}, please?|
We paid {n} dollars for {W} and {W}.|It is {n} minutes past {h}, and {P} is still {L}.|
I am not sure whether {P} {V} it.|Where were you {L}?|Everybody {V} {W}, nobody {V} {W}.|{I}.|
{W} {W} {W}.|The word is {W}.|Say {W} again, and then {W}.
""")

FOREIGN: Mapping[str, Sequence[str]] = {
    "de": _items("""
Guten Morgen, wie geht es Ihnen heute?|Mein Bruder möchte fünf schöne Äpfel kaufen.|
Pünktlich um sieben fuhr der Zug aus dem Bahnhof ab.|
Über den Wolken muss die Freiheit wohl grenzenlos sein.|
Bitte bringen Sie mir eine Tasse Kaffee und ein Stück Pflaumenkuchen.
"""),
    "fr": _items("""
Bonjour, je voudrais un bon verre de vin, s'il vous plaît.|Où habitez-vous maintenant, madame?|
Les beaux jours reviennent, et les oiseaux chantent.|
Ma petite fille joue du piano chaque matin.|Il pleut beaucoup depuis février, mais peu importe.
"""),
    "es": _items("""
Buenos días, ¿cómo se llama usted?|Mi hermano pequeño vive en un pueblo blanco.|
¿Por qué no bebes un poco de agua?|La primavera llegó muy temprano este año.|
Me gusta mucho bailar y comer pan con mantequilla.
"""),
    "it": _items("""
Buongiorno, vorrei un bicchiere d'acqua, per favore.|Mia mamma abita vicino al ponte vecchio.|
Che bella giornata, andiamo a fare una passeggiata!|Gli amici bevono un buon vino bianco.
"""),
    "pt-br": _items("""
Bom dia, tudo bem com você?|Minha mãe comprou pão fresco na padaria.|
O barco pequeno voltou para o porto.
"""),
    "nl": _items("""
Goedemorgen, mag ik een kopje koffie van u?|De bruine beer woont boven op de berg.|
Waarom ben je vandaag zo vroeg opgestaan?
"""),
    "sv": _items("""
God morgon, hur mår du i dag?|Min bror bor i en blå stuga bredvid sjön.|
Varför köpte ni en ny båt?
"""),
    "pl": _items("""
Dzień dobry, poproszę kawę z mlekiem.|Mój brat mieszka w małym domu pod Warszawą.|
Czy mogę panu pomóc?
"""),
    "ru": _items("""
Доброе утро, как вы поживаете?|Мой брат купил большой белый пароход.|
Почему вы опоздали на работу?
"""),
    "tr": _items("""
Günaydın, bugün nasılsınız?|Büyük bir bardak su verir misiniz?|Babam pazarda beyaz peynir aldı.
"""),
    "fi": _items("""
Hyvää huomenta, mitä kuuluu?|Pieni poika vei veneen puhtaaseen veteen.|
Huomenna syömme mustikkapiirakkaa.
"""),
    "id": _items("""
Selamat pagi, apa kabar?|Ibu membeli buah pisang di pasar baru.|
Bapak pergi ke kebun setiap pagi.
"""),
    "cmn": _items("""
早上好，你今天怎么样？|我妈妈买了八个苹果和一瓶水。|请问，火车站在哪里？
"""),
    "hi": _items("""
नमस्ते, आप कैसे हैं?|मेरा भाई बाज़ार से फल और सब्ज़ी लाया।|आप कब वापस आएँगे?
"""),
}  # fmt: skip
"""Sentences by espeak-ng language, for phones and mouth shapes that English lacks."""


class SentenceMaker:
    """Makes random sentences; with a lexicon, their words cover all pairs of phones.

    Args:
        lexicon: Pronouncing dictionary in CMUdict's format, or None for the built-in words alone.
    """

    def __init__(self, lexicon: Path | None) -> None:
        self._words_by_pair = _words_by_pair(lexicon) if lexicon is not None else ()

    def english(self, rng: np.random.Generator) -> str:
        """A sentence, question, exclamation or list."""
        template = _TEMPLATES[rng.integers(len(_TEMPLATES))]
        text = ""
        for part in template.split("{"):
            slot, closed, rest = part.partition("}")
            text += self._fill(slot, rng) + rest if closed else part
        return text[0].upper() + text[1:]

    def foreign(self, language: str, rng: np.random.Generator) -> str:
        """A sentence of another language and a number, which the engine speaks in that language."""
        sentences = FOREIGN[language]
        sentence = sentences[int(rng.integers(len(sentences)))]
        return f"{sentence} {int(10 ** rng.uniform(0.5, 6.5))}."

    def _fill(self, slot: str, rng: np.random.Generator) -> str:
        if slot == "n":
            return str(int(10 ** rng.uniform(0.3, 4.5)))
        if slot == "h":
            return str(int(rng.integers(1, 13)))
        if slot == "W":
            return self._word(rng)
        choices = {
            "P": _PEOPLE,
            "V": _VERBS,
            "A": _ADJECTIVES,
            "T": _THINGS,
            "L": _PLACES,
            "I": _ASIDES,
        }[slot]
        if slot in "TA" and rng.random() < 0.35:
            return self._word(rng)
        return choices[rng.integers(len(choices))]

    def _word(self, rng: np.random.Generator) -> str:
        if not self._words_by_pair:
            return _THINGS[rng.integers(len(_THINGS))]
        words = self._words_by_pair[rng.integers(len(self._words_by_pair))]
        return words[rng.integers(len(words))]


@lru_cache(maxsize=1)
def _words_by_pair(lexicon: Path) -> tuple[tuple[str, ...], ...]:
    """For each pair of phones, up to 40 words that contain it, in the order of the pairs."""
    words: dict[tuple[str, str], list[str]] = {}
    for line in lexicon.read_text(encoding="utf-8").splitlines():
        word, *symbols = line.partition("#")[0].split()
        if not (word.isascii() and word.isalpha() and 2 < len(word) < 11):
            continue
        phones = [from_arpabet(symbol) for symbol in symbols]
        for pair in pairwise(phones):
            found = words.setdefault(pair, [])
            if len(found) < 40 or len(word) % 7 == 3:
                found.append(word)
    return tuple(tuple(found[:: max(len(found) // 40, 1)]) for _, found in sorted(words.items()))
