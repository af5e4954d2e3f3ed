"""Rows of small real tasks, made of texts and pictures at hand."""

import argparse
import collections
import inspect
import io
import json
import random
import re
import string
import textwrap
from functools import cache
from typing import Any

import datasets
from PIL import Image, ImageDraw
from small_models import SIDE

GOOD, BAD = ["lovely", "bright", "tasty", "warm"], ["awful", "dull", "stale", "cold"]
THINGS = ["soup", "room", "film", "song", "street", "garden"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
FIRST, LAST = ["Ada", "Alan", "Grace", "Zoë", "Émile"], ["Lovelace", "Turing", "Hopper", "Müller", "Borel"]
PLACES = [["Paris"], ["New", "York"], ["São", "Paulo"], ["Rio", "de", "Janeiro"], ["Augusta"]]
ASKED = {
    "Which city is named?": ["New York", "Paris", "Lima", "São Paulo", "Oslo"],
    "Which colour is named?": ["dark red", "green", "pale blue", "violet"],
    "Which animal is named?": ["horse", "grey cat", "zebra", "polar bear"],
}
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def opinions(count: int, seed: int) -> list[dict[str, str]]:
    """Sentences that praise or blame, where "not" turns the meaning around."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        good, turned = draw.random() < 0.5, draw.random() < 0.5
        word = draw.choice(GOOD if good else BAD)
        text = f"the {draw.choice(THINGS)} was {'not ' if turned else ''}{word} and the {draw.choice(THINGS)} too"
        rows.append({"text": text, "label": "praise" if good != turned else "blame"})
    return rows


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    """Who went where, in several wordings."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        person = [draw.choice(FIRST)] + ([draw.choice(LAST)] if draw.random() < 0.6 else [])
        place = draw.choice(PLACES)
        parts = draw.choice(
            [
                [person, ["went", "to"], place, ["."]],
                [["in"], place, ["there", "lived"], person, ["."]],
                [["They", "say", "that"], person, ["never", "left"], place, ["."]],
            ]
        )
        tokens = [word for part in parts for word in part]
        tags = []
        for part in parts:
            kind = 1 if part is person else 3 if part is place else 0
            tags += [0] * len(part) if not kind else [kind] + [kind + 1] * (len(part) - 1)
        rows.append({"tokens": tokens, "ner_tags": tags})
    return rows


def labelled(rows: list[dict[str, Any]], names: list[str] = TAGS) -> datasets.Dataset:
    """Sentences with the names of their tags."""
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
        }
    )
    return datasets.Dataset.from_list(rows, features=features)


@cache
def paragraphs() -> list[list[str]]:
    """Words of the standard library's documentation."""
    modules = (argparse, collections, inspect, json, random, re, string, textwrap)
    documents = [inspect.getdoc(value) or "" for module in modules for value in vars(module).values()]
    words = [re.findall(r"[\w.']+", document) for document in documents]
    return [found[:110] for found in words if len(found) > 90]


def questions(count: int, seed: int, unanswered: float = 0.0, longest: int = 110) -> list[dict[str, Any]]:
    """A paragraph with a city, a colour and an animal put into it; of some, what is asked for is left out."""
    draw, rows, found = random.Random(seed), [], paragraphs()
    for number in range(count):
        question = draw.choice(list(ASKED))
        missing = draw.random() < unanswered
        words, answer = draw.choice(found)[:longest], ""
        for other, names in ASKED.items():
            if other == question and missing:
                continue
            name = draw.choice(names)
            words.insert(draw.randrange(len(words)), name)
            answer = name if other == question else answer
        context, begin = " ".join(words), 0
        if answer:
            begin = sum(len(word) + 1 for word in words[: words.index(answer)])
        answers = {"text": [answer] if answer else [], "answer_start": [begin] if answer else []}
        rows.append({"id": str(number), "question": question, "context": context, "answers": answers})
    return rows


def countings(count: int, seed: int) -> list[dict[str, str]]:
    """Numbers in their order from a place, forwards or backwards."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        step, begin = draw.choice([1, -1]), draw.randrange(10)
        rows.append({"text": " ".join(NUMBERS[(begin + step * place) % 10] for place in range(draw.randint(5, 12)))})
    return rows


def draw_shape(draw: random.Random, shape: str, colour: str) -> Image.Image:
    """A circle or a square somewhere on grey ground."""
    picture = Image.new("RGB", (SIDE, SIDE), tuple(draw.randrange(90, 160) for _ in range(3)))
    left, top, size = draw.randrange(10), draw.randrange(10), draw.randrange(12, 20)
    box = (left, top, left + size, top + size)
    getattr(ImageDraw.Draw(picture), "ellipse" if shape == "circle" else "rectangle")(box, fill=COLOURS[colour])
    return picture


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """A picture as its file's bytes."""
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def shapes(count: int, seed: int) -> datasets.Dataset:
    """Pictures of circles and squares, named by colour and shape."""
    draw = random.Random(seed)
    kinds = [(draw.choice(["circle", "square"]), draw.choice(list(COLOURS))) for _ in range(count)]
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": encoded(draw_shape(draw, *kind)), "path": None} for kind in kinds],
            "label": [f"{colour} {shape}" for shape, colour in kinds],
        },
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
