"""Prompts for the equality tests: 1 to 3,000 tokens, several scripts, greedy and seeded."""
import random

ENGLISH = ("A tarn is a small lake in a hollow of the mountains, fed from above and left by a stream. "
           "The water that comes in today was snow last year; what leaves it feeds the valley. ")
CHINESE = "冰斗湖是山中的小湖，由上方的雪水补给，再流向山谷。每一个前缀只计算一次，所有节点共享结果。"
CODE = ("for (int i = 0; i < block_count; ++i) {\n    if (!Verify(pages[i], keys[i])) {\n"
        "        return Recompute(i);\n    }\n}\n\n")
EMOJI = "🏔️ 💧 👩‍👩‍👧‍👦 naïve café – “quotes” … é 한국어 ประเทศไทย 🇨🇭 "


def prompts():
    """Requests in the form of `tarn generate --input`; always the same ones."""
    rng = random.Random(20)
    made = []

    def add(**fields):
        request = {"max_tokens": rng.choice([1, 2, 8, 16, 24]), "ignore_eos": True, **fields}
        if len(made) % 2 == 0:
            request["temperature"] = 0
        else:
            request.update(temperature=rng.choice([0.7, 1.0]), seed=len(made),
                           top_p=rng.choice([0.9, 1.0]), top_k=rng.choice([0, 40]))
        made.append(request)

    for text in (ENGLISH, CHINESE, CODE, EMOJI):
        for copies in (1, 4, 12):
            add(prompt=text * copies)
    for text in ("a", " ", "\n\n\n", "7", "湖", "🏔", "don't", "<|im_end|>", "  \t x"):
        add(prompt=text)
    # Lengths around block and chunk borders.
    for length in (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500, 1000, 2048, 2999, 3000):
        add(tokens=[rng.randrange(3, 1000) for _ in range(length)])
    # Prompts that share long prefixes and part at different places.
    base = [rng.randrange(3, 1000) for _ in range(700)]
    for cut in (32, 64, 100, 320, 500, 640, 699, 700):
        add(tokens=base[:cut] + [rng.randrange(3, 1000) for _ in range(60)])
    add(tokens=base, presence_penalty=0.5, frequency_penalty=0.5, repetition_penalty=1.2)
    add(prompt=ENGLISH * 3, min_tokens=4)
    add(prompt=ENGLISH * 3, stop=["\u0000never\u0000"])
    add(prompt=CODE * 2, min_p=0.05)
    return made
