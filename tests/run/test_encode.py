"""From text to ids and vectors: CLIP's tokens, and textual inversions as each program wrote them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hubctl.errors import RunError, UnsafeFile
from hubctl.run.encode import load_embedding, tokenize


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A  Photo\n of\tCATS ", "a photo of cats"),
        ("“quoted” ﬁne ｆｕｌｌ &amp; more", '"quoted" fine full & more'),  # what ftfy repairs
        ("ΟΔΟΣ", "οδος"),  # the last sigma of a word is another letter
        ("e\u0301", "é"),
    ],
)
def test_spellings_of_one_text(text: str, same: str) -> None:
    assert tokenize(text) == tokenize(same)


def test_tokens_everybody_knows() -> None:
    assert tokenize("") == []
    assert tokenize("a photo of a cat, 2") == [320, 1125, 539, 320, 2368, 267, 273]
    assert tokenize("it's") == [585, 568]
    assert tokenize("a <|endoftext|> b") == [320, 49407, 321]


VECTORS = torch.arange(24.0).reshape(3, 8)
PICKLES: dict[str, Any] = {
    "webui": {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "x", "step": None},
    "first trainers": {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)}),
    },
    "parameter": {"string_to_param": OrderedDict({"*": torch.nn.Parameter(VECTORS)})},
    "diffusers": {"<concept>": VECTORS},
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickled_inversions(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(PICKLES[name], path)
    found = load_embedding(path, "x")
    assert [torch.equal(one, VECTORS) for one in found.vectors] == [True]
    assert (found.length, found.vectors[0].requires_grad) == (3, False)


def test_one_vector_and_pairs(tmp_path: Path) -> None:
    save_file({"emb_params": VECTORS[0].half()}, tmp_path / "one.safetensors")
    assert load_embedding(tmp_path / "one.safetensors", "one").vectors[0].shape == (1, 8)
    save_file({"clip_l": VECTORS, "clip_g": torch.zeros(3, 10)}, tmp_path / "pair.safetensors")
    assert [one.shape[-1] for one in load_embedding(tmp_path / "pair.safetensors", "pair").vectors] == [8, 10]


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('run')",))


@pytest.mark.parametrize("inside", [Harm(), {"string_to_param": Harm()}, {"string_to_param": {"*": Harm()}}])
def test_a_pickle_that_wants_more_than_tensors_is_refused(inside: Any, tmp_path: Path) -> None:
    torch.save(inside, tmp_path / "x.pt")
    with pytest.raises(UnsafeFile):
        load_embedding(tmp_path / "x.pt", "x")


@pytest.mark.parametrize("inside", [{"string_to_param": {}}, {"name": "x"}, []])
def test_what_is_no_inversion_is_said(inside: Any, tmp_path: Path) -> None:
    torch.save(inside, tmp_path / "x.pt")
    with pytest.raises(RunError):
        load_embedding(tmp_path / "x.pt", "x")
