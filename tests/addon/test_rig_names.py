# SPDX-License-Identifier: GPL-3.0-or-later
"""What the names of shape keys mean."""

import re

import numpy as np
import pytest

from backend.articulation.phone_targets import CHANNELS, PHONE_TARGETS
from backend.heads import arkit
from backend.speech.phones import PHONES
from ptalker_blender import rig_names
from ptalker_blender.rig_names import ARKIT_NAMES


def with_side(name, left, right):
    return re.sub("Left$", left, re.sub("Right$", right, name))


def snake(name):
    return re.sub("([A-Z])", r"_\1", name)


SPELLINGS = {
    "ARKit": lambda name: name,
    "capital first letter": lambda name: name[0].upper() + name[1:],
    "_L": lambda name: with_side(name, "_L", "_R"),
    ".L": lambda name: with_side(name, ".L", ".R"),
    "lower case _l": lambda name: with_side(name, "_l", "_r").lower(),
    "-left": lambda name: with_side(name, "-left", "-right"),
    "side first": lambda name: re.sub("^(.*)(Left|Right)$", r"\2_\1", name),
    "snake": lambda name: snake(name).lower(),
    "all capitals": lambda name: name.upper(),
    "words": lambda name: snake(name).replace("_", " "),
    "Maya's prefix": lambda name: f"blendShape1.{name}",
    "prefix and .L": lambda name: f"blendShape1.{with_side(name, '.L', '.R')}",
    "common prefix": lambda name: f"Head_{name}",
    "unusual prefix": lambda name: f"MyHero_lod0_mesh__{name}",
    "MetaHuman": lambda name: f"CTRL_expressions_{with_side(name, 'L', 'R')}",
    "Daz": lambda name: f"facs_bs_{name[0].upper()}{name[1:]}_div2",
    "numbered": lambda name: f"A{ARKIT_NAMES.index(name) + 1:02d}_{snake(name).title()}",
    "copied mesh": lambda name: f"{name}.001",
}


def test_names_are_those_of_the_backend():
    assert arkit.ARKIT_NAMES == ARKIT_NAMES


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_all_blendshapes_are_found_in_any_spelling(spelling):
    names = {SPELLINGS[spelling](name): name for name in ARKIT_NAMES}
    found = rig_names.find_arkit_keys(["wrinkle map", *names, "Fat"])
    assert found.gains == {key: {name: 1.0} for key, name in names.items()}
    assert not found.left_alone


def meaning(key, *others):
    """ARKit names that drive a key beside others."""
    return dict(rig_names.find_arkit_keys([key, *others]).gains.get(key, {}))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("browInnerUp_L", "browInnerUp"),
        ("cheekPuffRight", "cheekPuff"),
        ("Jaw_Open", "jawOpen"),
        ("Jaw_L", "jawLeft"),
        ("Mouth_Roll_In_Upper_L", "mouthRollUpper"),
        ("Mouth_Pucker_Down_R", "mouthPucker"),
        ("Mouth_Up_Upper_L", "mouthUpperUpLeft"),
        ("Brow_Raise_Inner_L", "browInnerUp"),
        ("Brow_Drop_R", "browDownRight"),
        ("Eye_L_Look_R", "eyeLookInLeft"),
        ("Eye_R_Look_Up", "eyeLookUpRight"),
        ("CTRL_expressions_mouthCornerPullL", "mouthSmileLeft"),
        ("CTRL_expressions_mouthFunnelUL", "mouthFunnel"),
        ("CTRL_expressions_mouthLipsPurseDR", "mouthPucker"),
        ("CTRL_expressions_eyeLookLeftR", "eyeLookInRight"),
        ("CTRL_expressions_noseWrinkleL", "noseSneerLeft"),
        ("facs_jnt_JawOpen", "jawOpen"),
        ("facs_bs_MouthPressUpperLeft", "mouthPressLeft"),
        ("Genesis9.facs_bs_MouthPurseLowerLeft", "mouthPucker"),
        ("Fcl_EYE_Close_L", "eyeBlinkLeft"),
        ("ウィンク右", "eyeBlinkRight"),
    ],
)
def test_names_of_other_rigs(key, name):
    assert meaning(key) == {name: 1.0}


@pytest.mark.parametrize("key", ["mouthSmile", "eCTRLMouthSmile", "Mouth Smile"])
def test_one_key_for_both_sides_takes_their_mean(key):
    assert meaning(key) == {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}


def test_opposites_are_no_pair():
    assert meaning("mouth") == meaning("jaw") == meaning("eyeLookIn") == {}


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("jawOpen_mouthClose", ["jawOpen"]),  # a corrective shape
        ("corr_jawOpen", ["jawOpen"]),
        ("Left_mouthSmileRight", []),
        ("eyeLookLeft", []),  # both eyes, or one
        ("mouthSmile", ["mouthSmileLeft"]),
        ("cheekPuff_L", ["cheekPuff"]),
        ("mouthOpen", ["jawOpen"]),
        ("cheekRaiserLeft", ["cheekSquintLeft"]),
    ],
)
def test_keys_with_two_meanings_are_left_alone_and_listed(key, others):
    found = rig_names.find_arkit_keys([key, *others])
    assert key not in found.gains
    assert found.left_alone == (key,)


def test_an_unusual_prefix_of_few_names_is_none():
    assert meaning("shirt_jawOpen") == {}
    names = ["jawOpen", "mouthClose", "mouthPucker", "mouthFunnel", "tongueOut"]
    assert meaning("shirt_jawOpen", *(f"shirt_{name}" for name in names)) == {"jawOpen": 1.0}


def test_copies_of_a_key_are_not_driven_twice():
    assert set(rig_names.find_arkit_keys(["jawOpen", "jawOpen.001"]).gains) == {"jawOpen"}


def test_joined_meshes_are_driven_together():
    found = rig_names.find_arkit_keys([*ARKIT_NAMES, *(f"Teeth_{name}" for name in ARKIT_NAMES)])
    assert len(found.gains) == 104


OCULUS = "sil PP FF TH DD kk CH SS nn RR aa E I O U"


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        (OCULUS, "rest PP FF TH DD kk CH SS nn RR aa E ih oh ou"),
        (re.sub(r"(\w+)", r"viseme_\1", OCULUS), "rest PP FF TH DD kk CH SS nn RR aa E ih oh ou"),
        (re.sub(r"(\w+)", r"vrc.v_\1", OCULUS.lower()),
         "rest PP FF TH DD kk CH SS nn RR aa E ih oh ou"),
        ("A I U E O", "aa ee ou E oh"),
        ("aa ih ou ee oh", "aa ee ou E oh"),
        ("Fcl_MTH_A Fcl_MTH_I Fcl_MTH_U Fcl_MTH_E Fcl_MTH_O", "aa ee ou E oh"),
        ("Face.M_F00_000_00_Fcl_MTH_A Face.M_F00_000_00_Fcl_MTH_I Face.M_F00_000_00_Fcl_MTH_U "
         "Face.M_F00_000_00_Fcl_MTH_E Face.M_F00_000_00_Fcl_MTH_O", "aa ee ou E oh"),
        ("あ い う え お ん", "aa ee ou E oh PP"),
        ("V_Open V_Explosive V_Dental_Lip V_Tight_O V_Tight V_Wide V_Affricate V_Lip_Open",
         "aa PP FF ou UH ee CH SS"),
        ("AI E O U MBP FV L WQ etc rest", "aa E oh ou PP FF L W etc rest"),
        ("eCTRLvAA eCTRLvEE eCTRLvF eCTRLvM eCTRLvOW eCTRLvUW eCTRLvSH",
         "aa ee FF PP oh ou CH"),
    ],
)  # fmt: skip
def test_visemes_are_found(names, shapes):
    expected = dict(zip(names.split(), shapes.split(), strict=True))
    found = rig_names.find_visemes(["Smile", *names.split(), "Fcl_MTH_Angry", "V_Tongue_up"])
    assert found == expected


def test_a_few_letters_are_no_visemes():
    assert rig_names.find_visemes(["S", "M", "L", "XL", "A", "B"]) == {}


# The phones that a mouth shape stands for.
PHONES_OF = {
    "FF": "F V", "TH": "TH DH", "DD": "T D", "kk": "K G", "CH": "CH JH SH", "SS": "S Z",
    "nn": "N L", "RR": "R", "aa": "AA", "E": "EH", "ih": "IH", "oh": "OW", "ou": "UW", "ee": "IY",
    "ER": "ER", "L": "L", "W": "W", "UH": "UH", "etc": "D G K N S T",
}  # fmt: skip
CLEAR = 1.25
ARKIT_OF = {
    "jaw": "jawOpen", "close": "mouthClose", "funnel": "mouthFunnel", "pucker": "mouthPucker",
    "forward": "jawForward", "stretch": "mouthStretchLeft", "smile": "mouthSmileLeft",
    "lower_down": "mouthLowerDownLeft", "upper_up": "mouthUpperUpLeft",
    "roll_lower": "mouthRollLower", "tongue": "tongueOut",
}  # fmt: skip


def test_mouth_shapes_are_the_phone_targets_spoken_clearly():
    for shape, phones in PHONES_OF.items():
        rows = [PHONE_TARGETS.first_row[PHONES.index(phone)] for phone in phones.split()]
        values = dict(zip(CHANNELS, PHONE_TARGETS.targets[rows].mean(axis=0), strict=True))
        values["close"] *= values["jaw"]
        weights = rig_names.MOUTH_SHAPES[shape]
        for channel, name in ARKIT_OF.items():
            np.testing.assert_allclose(
                weights.get(name, 0.0), CLEAR * values[channel], atol=0.006, err_msg=shape
            )
            other = name.replace("Left", "Right")
            assert weights.get(other) == weights.get(name)
    assert PHONES_OF.keys() | {"rest", "PP"} == rig_names.MOUTH_SHAPES.keys()
    closed = rig_names.MOUTH_SHAPES["PP"]
    assert closed["mouthClose"] == closed["jawOpen"]
