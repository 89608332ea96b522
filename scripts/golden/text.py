"""Writes tests/golden/tokenizers/: small tokenizers of the kinds of published checkpoints, and the ids that Hugging
Face's `tokenizers` and SentencePiece's Python package give for texts that are hard to get right.

No published tokenizer is used. Each is trained here, on lines "<character> <its name in Unicode>" and on sentences of a
few words, and then written as the checkpoints of its kind are:
  gpt2.json       BPE of bytes, pre_tokenizer ByteLevel with its own cut
  llama3.json     BPE of bytes, Split by Llama 3's pattern and ByteLevel without a cut, ignore_merges, merges as pairs
  qwen.json       NFC, Split by Qwen's pattern and ByteLevel; added tokens that are not special
  llama2.model    SentencePiece BPE with byte fallback, a space before the text, no stripping: LLaMA 2's settings
  llama2.json     the same model as transformers converts it: normalizers Prepend and Replace, fused unknown
  metaspace.json  the same as later conversions: pre_tokenizer Metaspace, before the first piece alone
  unigram.model   SentencePiece unigram with stripped spaces and a user-defined symbol
golden.json: `texts`, and for each file a row [ids, ids without special tokens, decoded] for each text; of SentencePiece
the ids without special tokens and the decoded text alone.
"""
import io
import json
import random
import unicodedata
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "tokenizers"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIAL = ["<unk>", "<s>", "</s>"]

TEXTS = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t\t", "a", " a", "a ", "  a  b   c    ", "Hello, world!", "hello world",
    "A chat between a curious user and an artificial intelligence assistant. USER: What is it?\nASSISTANT: 42",
    "It's we're I'll YOU'VE can'T I'd she'S it'\u017f", "0 12 123 1234 12345 3.14 1,000", "tabs\tand\r\nlines\rend\n\n\n",
    "   leading", "trailing   ", "a\u00a0b\u2003c\u3000d\u2028e\u0085f\u200bg", "na\u00efve caf\u00e9 cafe\u0301 A\u030a \u212b \ufb01",
    "\u00c5ngstr\u00f6m \u1e9b\u0323 \u0344 \u0958", "\uac00 \u1100\u1161\u11a8", "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22", "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\U00020000 \U0001d49c \u2167 \u00bd \u0663", "\u2581 \u2581\u2581a b\u2581", "\ufffd \ufeffbom \u0000nul \u007f",
    "<s>", "</s>", "<s> hi </s>", "a<s>b</s>c", "<s><s></s></s>", "< s> <s <unk> <pad>", "<image>\nWhat is this?",
    "x <image> y<image>z", "<|begin_of_text|>hi<|end_of_text|>", "<think> so </think> <tool>  x", "<0x0A> <0xFF>",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(3))", "https://example.org/a_b?c=d&e=%20", "a" * 70, "!" * 40,
    "\u00e9" * 20, " " * 33 + "x", "latin small letter a with grave \u00e0", "LATIN CAPITAL LETTER A WITH DIAERESIS",
]


def corpus() -> list[str]:
    rng = random.Random(7)
    ranges = [(0x21, 0x17f), (0x391, 0x3c9), (0x410, 0x44f), (0x5d0, 0x5ea), (0x3041, 0x3096), (0x1f600, 0x1f620)]
    lines = [f"{chr(c)} {unicodedata.name(chr(c)).lower()}" for low, high in ranges for c in range(low, high + 1)
             if unicodedata.name(chr(c), "")]
    words = ("the a user assistant image what is are it this that of and question answer in world hello it's we're "
             "curious polite helpful return print example square 42 1234 2026 caf\u00e9 na\u00efve").split()
    for _ in range(400):
        line = " ".join(rng.choice(words) for _ in range(rng.randrange(3, 12)))
        lines.append(line.capitalize() + rng.choice([".", "?", "!", ",\n    ", "\n\n"]))
    return lines


def added(tokenizer: tokenizers.Tokenizer, special: list, plain: list = ()) -> None:
    tokenizer.add_special_tokens([tokenizers.AddedToken(t, normalized=False, special=True) if isinstance(t, str) else t
                                  for t in special])
    tokenizer.add_tokens([tokenizers.AddedToken(t, normalized=False) for t in plain])


def of_bytes(pattern: str | None, size: int) -> tokenizers.Tokenizer:
    t = tokenizers.Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    t.pre_tokenizer = level if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False), level])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return t


def sentence_piece(**options) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=out, num_threads=1, minloglevel=2, **options)
    return out.getvalue()


def converted(processor: sentencepiece.SentencePieceProcessor) -> dict:
    """A SentencePiece BPE as tokenizer.json: its merges are the pairs of pieces that make a piece, in its order."""
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    ids = {p: i for i, p in enumerate(pieces)}
    merges = []
    for i, piece in enumerate(pieces):
        pairs = [(piece[:n], piece[n:]) for n in range(1, len(piece))]
        pairs = [(a, b) for a, b in pairs if a in ids and b in ids and not processor.is_byte(i)]
        merges += [(processor.get_score(i), *p) for p in sorted(pairs, key=lambda p: (ids[p[0]], ids[p[1]]))]
    merges.sort(key=lambda m: -m[0])
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, t in enumerate(SPECIAL)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids, "merges": [f"{a} {b}" for _, a, b in merges]}}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    made: dict[str, tokenizers.Tokenizer] = {}

    made["gpt2"] = of_bytes(None, 500)
    added(made["gpt2"], ["<|endoftext|>"])
    file = json.loads(of_bytes(LLAMA3, 600).to_str())
    file["model"]["ignore_merges"] = True
    file["model"]["vocab"]["\u0120unreached"] = len(file["model"]["vocab"])  # reachable only with ignore_merges
    made["llama3"] = tokenizers.Tokenizer.from_str(json.dumps(file))
    added(made["llama3"], ["<|begin_of_text|>", "<|end_of_text|>",
                           tokenizers.AddedToken("<image>", normalized=False, special=True, lstrip=True, rstrip=True)])
    made["qwen"] = of_bytes(QWEN, 600)
    made["qwen"].normalizer = normalizers.NFC()
    added(made["qwen"], ["<|endoftext|>", "<image>"], ["<think>", "</think>", "<tool>"])

    llama = dict(model_type="bpe", vocab_size=900, byte_fallback=True, add_dummy_prefix=True, character_coverage=0.9995,
                 remove_extra_whitespaces=False, normalization_rule_name="identity", split_digits=True,
                 allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    models_of = {"llama2": sentence_piece(**llama),
                 "unigram": sentence_piece(model_type="unigram", vocab_size=340, character_coverage=0.98, normalization_rule_name="identity",
                                           user_defined_symbols=["<image>"], pad_id=0, unk_id=1, bos_id=2, eos_id=3)}
    processors = {n: sentencepiece.SentencePieceProcessor(model_proto=b) for n, b in models_of.items()}
    file = converted(processors["llama2"])
    made["llama2"] = tokenizers.Tokenizer.from_str(json.dumps(file))
    added(made["llama2"], ["<image>", "<pad>"])
    file["normalizer"] = None
    file["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    made["metaspace"] = tokenizers.Tokenizer.from_str(json.dumps(file))
    added(made["metaspace"], ["<image>"])

    texts = TEXTS + ["an unreached word", " unreached"]
    golden: dict = {"tokenizers": tokenizers.__version__, "sentencepiece": sentencepiece.__version__, "texts": texts}
    for name, t in made.items():
        (OUT / f"{name}.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False) + "\n")
        t = tokenizers.Tokenizer.from_file(str(OUT / f"{name}.json"))
        rows = []
        for text in texts:
            ids = t.encode(text, add_special_tokens=False).ids
            t.encode_special_tokens = True
            plain = t.encode(text, add_special_tokens=False).ids
            t.encode_special_tokens = False
            rows.append([ids, plain, t.decode(ids, skip_special_tokens=True)])
        golden[f"{name}.json"] = rows
    for name, p in processors.items():
        (OUT / f"{name}.model").write_bytes(models_of[name])
        rows = [[p.encode(text)] for text in texts]
        golden[f"{name}.model"] = [[ids, p.decode([i for i in ids if not p.is_unknown(i)])] for [ids] in rows]
    (OUT / "golden.json").write_text("{\n" + ",\n".join(
        f"{json.dumps(k)}: " + (json.dumps(v) if isinstance(v, str) else
                                "[\n" + ",\n".join(json.dumps(row) for row in v) + "\n]")
        for k, v in golden.items()) + "\n}\n")


main()
