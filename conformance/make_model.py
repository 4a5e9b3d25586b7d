"""Make a tiny Qwen2 with random weights and a real tokenizer: `make_model.py DIRECTORY`.

Nothing is downloaded. The tokenizer is byte-level BPE trained on the text below, so every string
round-trips; the chat template is ChatML, as in Qwen2. The weights are random (seeded), so the
answers are noise: what is tested is the path of the bytes, never the sense of them.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CORPUS = [
    "A penstock is the pipe that feeds the turbines of a dam; a spillway takes the rest.",
    "You are a helpful assistant. The user asks a question and the assistant answers it.",
    "Hello! How many tokens does this sentence have? One, two, three, four, five.",
    "def add(a, b):\n    return a + b\n",
    '{"model": "tiny-qwen2", "messages": [{"role": "user", "content": "Hello"}]}',
    "压力钢管把水引向水轮机，溢洪道泄掉多余的水。你好，世界！",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# One token each, as in QwQ and R1: vLLM's reasoning parser looks the tags up in the vocabulary.
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTEXT = 2048


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    fast.add_tokens(TAGS)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(vocabulary: int, eos: int, pad: int) -> Qwen2ForCausalLM:
    # Two heads of 64: vLLM's CPU attention wants a head dimension that is a multiple of 32.
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="bfloat16",
    )
    torch.manual_seed(20261124)
    return Qwen2ForCausalLM(config).to(torch.bfloat16)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    model.generation_config.update(
        do_sample=True, temperature=0.7, top_p=0.95, eos_token_id=tokenizer.eos_token_id
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"directory": directory.name, "parameters": parameters}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_model.py DIRECTORY")
    main(Path(sys.argv[1]))
