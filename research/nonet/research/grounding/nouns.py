"""The words people say for the 80 classes of COCO, and which class an expression is about.

The table serves three ends: RefCOCO's boxes have no class in the files at hand, so their class is read from
what people called them; negatives must not name what is there; and choosing a box by its noun alone is the
baseline that a matcher has to beat.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

__all__ = ["SAID", "class_of_instance", "classes_named", "first_class"]

#: Words beside the class's own name, most of them from English as people write it to one another.
SAID: Final[dict[str, str]] = {
    "person": (
        "man men woman women boy girl guy guys lady ladies kid child children baby toddler people player "
        "batter catcher umpire pitcher skier surfer rider skater skateboarder snowboarder dude male female "
        "mom dad mother father gentleman chick him her he she someone somebody bride groom soldier officer "
        "cop worker chef waiter waitress fan spectator runner swimmer cyclist biker driver passenger ump "
        "girls boys kids ladies babies couple hitter teen adult grandma grandpa brother sister ref referee "
        "persons policeman fireman cowboy jockey goalie defender shirt jersey hoodie hat blonde bald beard"
    ),
    "bicycle": "bike bikes bicycles cycle",
    "car": "cars vehicle suv sedan taxi cab minivan van jeep hatchback",
    "motorcycle": "motorbike motor bike scooter moped cycle motorcycles bikes vespa harley",
    "airplane": "plane planes aeroplane jet aircraft airliner airplanes",
    "bus": "buses coach double decker",
    "train": "trains locomotive engine railcar caboose subway",
    "truck": "trucks lorry pickup semi van trailer firetruck tow",
    "boat": "boats ship canoe kayak sailboat raft yacht ferry",
    "traffic light": "stoplight signal lights",
    "fire hydrant": "hydrant",
    "stop sign": "sign",
    "parking meter": "meter meters",
    "bench": "benches pew",
    "bird": "birds duck ducks goose geese seagull pigeon parrot owl swan chicken rooster hen eagle ducks "
    "flamingo peacock hawk",
    "cat": "cats kitten kitty kittens feline",
    "dog": "dogs puppy puppies pup doggy hound poodle dachshund",
    "horse": "horses pony mare stallion foal colt",
    "sheep": "lamb lambs ram goat goats ewe sheeps",
    "cow": "cows bull bulls calf cattle ox steer oxen bison",
    "elephant": "elephants ele eleph",
    "bear": "bears cub polar grizzly cubs",
    "zebra": "zebras zeb zebra's",
    "giraffe": "giraffes giraff girrafe",
    "backpack": "bag rucksack bookbag knapsack pack",
    "umbrella": "umbrellas parasol brolly",
    "handbag": "purse bag bags pocketbook tote",
    "tie": "ties necktie bowtie",
    "suitcase": "suitcases luggage bag bags briefcase case trunk",
    "frisbee": "disc disk",
    "skis": "ski",
    "snowboard": "board",
    "sports ball": "ball baseball football basketball soccerball",
    "kite": "kites",
    "baseball bat": "bat",
    "baseball glove": "glove mitt",
    "skateboard": "board skate",
    "surfboard": "board surfboards surf",
    "tennis racket": "racket racquet",
    "bottle": "bottles beer wine ketchup",
    "wine glass": "glass glasses goblet wineglass",
    "cup": "cups mug mugs glass coffee drink beverage",
    "fork": "forks",
    "knife": "knives blade",
    "spoon": "spoons ladle",
    "bowl": "bowls dish soup",
    "banana": "bananas",
    "apple": "apples",
    "sandwich": "sandwiches sub burger panini hamburger sandwhich",
    "orange": "oranges tangerine",
    "broccoli": "brocolli brocoli broc",
    "carrot": "carrots",
    "hot dog": "hotdog hotdogs dog sausage",
    "pizza": "pizzas slice slices pie",
    "donut": "donuts doughnut doughnuts",
    "cake": "cakes cupcake cupcakes dessert",
    "chair": "chairs seat recliner armchair stool",
    "couch": "sofa couches loveseat sofas",
    "potted plant": "plant plants flower pot flowers planter",
    "bed": "beds mattress bunk",
    "dining table": "table tables desk tablecloth counter",
    "toilet": "toilets urinal potty",
    "tv": "television screen monitor tvs monitors televisions screens",
    "laptop": "laptops computer notebook macbook computers",
    "mouse": "mice",
    "remote": "remotes controller control wiimote",
    "keyboard": "keyboards",
    "cell phone": "phone cellphone phones mobile smartphone iphone",
    "microwave": "microwaves",
    "oven": "stove ovens range",
    "toaster": "toasters",
    "sink": "sinks basin",
    "refrigerator": "fridge freezer refridgerator refrigerators",
    "book": "books magazine novel",
    "clock": "clocks watch",
    "vase": "vases jar pot",
    "scissors": "scissor shears",
    "teddy bear": "teddy bear bears stuffed toy teddybear doll",
    "hair drier": "dryer hairdryer blowdryer",
    "toothbrush": "brush toothbrushes",
}

#: Nouns that say of a person what she wears rather than what is meant, unless nothing else is named.
_WORN: Final = frozenset(["shirt", "jersey", "hoodie", "hat", "blonde", "bald", "beard"])
_WORDS: Final = re.compile(r"[a-z']+")


@cache
def _spoken() -> dict[str, tuple[str, ...]]:
    """The classes that a word may mean."""
    found: dict[str, list[str]] = {}
    for name, words in SAID.items():
        for word in {name, *words.split(), *([name + "s"] if not name.endswith("s") else [])}:
            found.setdefault(word, []).append(name)
    return {word: tuple(names) for word, names in found.items()}


def _mentions(expression: str) -> list[tuple[int, str, tuple[str, ...]]]:
    """Place, word and classes of each noun of the table, in the order of the text; two words before one."""
    spoken = _spoken()
    words = _WORDS.findall(expression.lower())
    found = []
    index = 0
    while index < len(words):
        pair = " ".join(words[index : index + 2])
        if len(words) - index > 1 and pair in spoken:
            found.append((index, pair, spoken[pair]))
            index += 2
            continue
        word = words[index]
        if word in spoken and not (word == "orange" and index + 1 < len(words)):
            found.append((index, word, spoken[word]))
        index += 1
    return found


def classes_named(expression: str) -> set[str]:
    """All classes that any word of the text may mean."""
    return {name for _, _, names in _mentions(expression) for name in names}


def first_class(expression: str, among: Iterable[str]) -> str | None:
    """The class of the first noun that may mean one of ``among``; what is worn counts only where nothing
    else is named. None if the text names none of them.
    """
    allowed = set(among)
    worn = None
    for _, word, names in _mentions(expression):
        fitting = [name for name in names if name in allowed]
        if not fitting:
            continue
        if word not in _WORN:
            return fitting[0]
        worn = worn or fitting[0]
    return worn


def class_of_instance(expressions: Sequence[str], among: Sequence[str]) -> tuple[str | None, float]:
    """What most of one object's expressions call it, and the share of those that agree, 0..1."""
    votes: Counter[str] = Counter()
    for expression in expressions:
        fitting = next(
            (names for _, word, names in _mentions(expression) if word not in _WORN),
            next((names for _, _, names in _mentions(expression)), ()),
        )
        for name in fitting:
            if name in among:
                votes[name] += 1
    if not votes:
        return None, 0.0
    name, count = max(votes.items(), key=lambda vote: vote[1])
    return name, min(1.0, count / len(expressions))
