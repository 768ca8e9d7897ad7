"""Prompt text → conditioning: CLIP tokens, chunks, textual inversions, clip skip, emphasis.

Shapes: a chunk is 77 positions; conditioning is [77·chunks, width], SDXL adds a pooled vector [projection].
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hubctl.run import prompt as language
from hubctl.run.loader import Model

BOS, EOS = 49406, 49407
MERGES = 49152 - 256 - 2
VOCABULARY = Path(__file__).parent / "configs" / "clip_bpe.txt.gz"


@cache
def tokenizer() -> Any:
    """CLIP's byte-pair tokenizer, from the shipped merges: lower-cased words, `</w>` ends one, no specials added."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    lines = gzip.decompress(VOCABULARY.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    out = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",  # noqa: S106
        )
    )
    out.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    out.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    out.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return out


def _byte_letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, in CLIP's order."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in kept] + [chr(256 + n) for n in range(256 - len(kept))]


def tokenize(text: str) -> list[int]:
    """Token ids of one run. ftfy and Python's lower case first, as in the reference's slow tokenizer."""
    import ftfy

    return list(tokenizer().encode(ftfy.fix_text(text).lower(), add_special_tokens=False).ids)


@dataclass(frozen=True)
class Embedding:
    """A textual inversion: one [n, width] tensor per text encoder."""

    name: str
    vectors: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        return int(self.vectors[0].shape[0])


class _OldParameters:
    """What stands where the first trainers' ParameterDict stood: keeps its tensors, runs nothing of it."""

    found: dict[str, Tensor] | None = None

    def __setstate__(self, state: Any) -> None:
        self.found = state.get("_parameters") if isinstance(state, dict) else None


def load_embedding(path: Path, name: str) -> Embedding:
    """`.pt` (string_to_param), safetensors (emb_params, clip_l with clip_g), diffusers' one-key `.bin`.

    Raises UnsafeFile for a pickle that holds more than tensors, RunError for a file of another kind.
    """
    from hubctl.errors import RunError, UnsafeFile

    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        from safetensors.torch import load_file

        data: Any = load_file(path)
    else:
        try:
            with torch.serialization.safe_globals([(_OldParameters, "torch.nn.modules.container.ParameterDict")]):
                data = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UnsafeFile(f"`{path.name}` holds more than tensors: {type(error).__name__}") from None
    param = data.get("string_to_param") if isinstance(data, dict) else None
    if isinstance(param, _OldParameters):
        param = param.found
    if isinstance(param, dict) and param:
        data = {"*": next(iter(param.values()))}
    if isinstance(data, dict) and "clip_l" in data and "clip_g" in data:
        return Embedding(name, (data["clip_l"].float(), data["clip_g"].float()))
    found = data.get("emb_params") if isinstance(data, dict) else None
    if found is None and isinstance(data, dict):
        found = next((tensor for tensor in data.values() if isinstance(tensor, Tensor)), None)
    if not isinstance(found, Tensor):
        raise RunError(f"`{path.name}` is not a textual inversion")
    return Embedding(name, (found.detach().float().reshape(-1, found.shape[-1]),))


@dataclass(frozen=True)
class Conditioning:
    """What one prompt text becomes. `vector`: SDXL's pooled output."""

    tokens: Tensor  # [77·chunks, width]
    vector: Tensor | None = None


class Encoder:
    """Encodes texts with one loaded model and one set of embeddings."""

    def __init__(
        self,
        model: Model,
        embeddings: Sequence[Embedding] = (),
        *,
        clip_skip: int = 1,
        emphasis: str = "Original",
        forge: bool = False,
        comfy: bool = False,
        comma_backtrack: int = language.COMMA_BACKTRACK,
        clip_skip_sdxl: bool = False,
    ) -> None:
        self.model, self.clip_skip, self.emphasis, self.forge, self.comfy = model, clip_skip, emphasis, forge, comfy
        self.comma_backtrack, self.clip_skip_sdxl = comma_backtrack, clip_skip_sdxl
        widths = [encoder.config.hidden_size for encoder in model.encoders]
        self._embeddings: dict[tuple[int, ...], Embedding] = {}
        self._by_name: dict[str, Embedding] = {}
        for embedding in embeddings:
            if [vector.shape[-1] for vector in embedding.vectors] == widths:  # another width stays text
                self._embeddings[tuple(tokenize(embedding.name))] = embedding
                self._by_name[embedding.name.casefold()] = embedding
        self._longest = max((len(name) for name in self._embeddings), default=0)

    def _find(self, tokens: Sequence[int], position: int) -> tuple[Embedding, int, int] | None:
        for length in range(min(self._longest, len(tokens) - position), 0, -1):
            found = self._embeddings.get(tuple(tokens[position : position + length]))
            if found is not None:
                return found, found.length, length
        return None

    def chunks(self, text: str) -> tuple[language.PromptChunk, ...]:
        """Text to 77-position chunks, by this run's emphasis mode."""
        if self.comfy:
            return language.comfy_chunks(text, tokenize, self._named)
        runs = ((text, 1.0),) if self.emphasis == "None" else language.attention(text)
        return language.chunks(runs, tokenize, self._find, comma_backtrack=self.comma_backtrack)

    def _named(self, name: str) -> tuple[Embedding, int] | None:
        """`embedding:name` of ComfyUI, with or without a comma behind it."""
        for spelling in (name, name.rstrip(","), name.rpartition(".")[0]):
            found = self._by_name.get(spelling.casefold())
            if found is not None:
                return found, found.length
        return None

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """Texts of one prompt's timeline, as one batch: padded to the most chunks, normalised together."""
        distinct = list(dict.fromkeys(texts))
        counts = torch.tensor([texts.count(text) for text in distinct], dtype=torch.float32)
        rows = [self.chunks(text) for text in distinct]
        longest = max(len(row) for row in rows)
        empty = language.chunks((("", 1.0),), tokenize)[0]
        rows = [(*row, *([empty] * (longest - len(row)))) for row in rows]
        pieces: list[Tensor] = []
        pooled: Tensor | None = None
        for index in range(longest):
            column = [row[index] for row in rows]
            outputs = [self._encode(column, which, counts) for which in range(len(self.model.encoders))]
            pieces.append(torch.cat([tokens for tokens, _ in outputs], dim=-1))
            if index == 0 and self.model.is_xl:
                pooled = outputs[-1][1]
        tokens = torch.cat(pieces, dim=1)
        made = {
            text: Conditioning(tokens[i], pooled[i] if pooled is not None else None) for i, text in enumerate(distinct)
        }
        return [made[text] for text in texts]

    def _encode(
        self, column: Sequence[language.PromptChunk], which: int, counts: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """One chunk position of a batch through one encoder: [batch, 77, width] and, for G, pooled vectors."""
        encoder = self.model.encoders[which]
        projected = hasattr(encoder, "text_projection")
        device = self.model.device
        ids = torch.tensor([chunk.tokens for chunk in column], device=device)
        if projected:
            ids = _padded_after_end(ids)
        fixes = [(row, at, e.vectors[which]) for row, chunk in enumerate(column) for at, e in chunk.fixes]
        text = getattr(encoder, "text_model", encoder)
        hidden, last = self._hidden(text, ids, fixes)
        tokens = self._layer(text, hidden, last, projected)
        weights = torch.tensor([chunk.weights for chunk in column], device=device)
        tokens = self._emphasise(tokens, weights, counts.to(device), text)
        pooled = None
        if projected:
            at = ids.argmax(dim=-1)
            pooled = encoder.text_projection(last[torch.arange(len(ids), device=device), at])
            pooled = pooled.float()
        return tokens.float(), pooled

    @staticmethod
    def _hidden(text: Any, ids: Tensor, fixes: Sequence[tuple[int, int, Tensor]]) -> tuple[Sequence[Tensor], Tensor]:
        """All hidden states and the final-normed last one, with embeddings' vectors put in place."""

        def put(_module: Any, _args: Any, output: Tensor) -> Tensor:
            for row, at, vectors in fixes:
                room = min(vectors.shape[0], output.shape[1] - at - 1)
                output[row, at + 1 : at + 1 + room] = vectors[:room].to(output)
            return output

        hook = text.embeddings.token_embedding.register_forward_hook(put) if fixes else None
        try:
            out = text(input_ids=ids, output_hidden_states=True)
        finally:
            if hook is not None:
                hook.remove()
        return out.hidden_states, out.last_hidden_state

    def _layer(self, text: Any, hidden: Sequence[Tensor], last: Tensor, projected: bool) -> Tensor:
        """The layer clip skip asks for, by family (webui-semantics §3.6)."""
        skip = max(self.clip_skip, 1)
        norm = text.final_layer_norm
        if self.model.is_xl:
            deep = 2
            if (skip > 2 and (self.forge or self.comfy)) or (self.clip_skip_sdxl and not projected):
                deep = skip
            return hidden[-min(deep, len(hidden))]
        if self.model.family == "sd2":
            deep = 1 + skip if self.forge else max(skip, 2) if self.comfy else 2
            return norm(hidden[-min(deep, len(hidden))])  # type: ignore[no-any-return]
        return last if skip == 1 else norm(hidden[-min(skip, len(hidden))])

    def _emphasise(self, z: Tensor, weights: Tensor, counts: Tensor, text: Any) -> Tensor:
        """Weights into vectors; "Original" then restores the batch's mean, each text counted as often as it occurs."""
        if self.comfy:
            if bool((weights == 1).all()):
                return z
            empty = self._empty(text, z)
            return empty + weights[..., None] * (z - empty)
        if self.emphasis in {"Ignore", "None"}:
            return z

        def mean(z: Tensor) -> Tensor:
            return z.mean() if len(z) == 1 else (z.mean(dim=(1, 2)) * counts).sum() / counts.sum()

        before = mean(z)
        z = z * weights[..., None]
        return z * (before / mean(z)) if self.emphasis == "Original" else z

    def _empty(self, text: Any, like: Tensor) -> Tensor:
        """The empty prompt through the same encoder: ComfyUI's weights interpolate from it."""
        encoder = next(e for e in self.model.encoders if getattr(e, "text_model", e) is text)
        projected = hasattr(encoder, "text_projection")
        chunk = language.chunks((("", 1.0),), tokenize)[0]
        ids = torch.tensor([chunk.tokens], device=self.model.device)
        if projected:
            ids = _padded_after_end(ids)
        hidden, last = self._hidden(text, ids, ())
        return self._layer(text, hidden, last, projected).expand_as(like)


def _padded_after_end(ids: Tensor) -> Tensor:
    """OpenCLIP pads with 0 after the first EOS."""
    ended = (ids == EOS).cumsum(dim=-1)
    after = (ended > 1) | ((ended == 1) & (ids != EOS))
    return ids.masked_fill(after, 0)
