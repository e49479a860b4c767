#include "engine/text/bpe_trainer.h"

namespace tarn::engine {
namespace {

// Written for this project. Prose in two languages, code and figures, so that the demo's tokens are
// of many lengths.
constexpr char kCorpus[] = R"corpus(
A tarn is a small lake in the mountains. The water comes down from the snow above, rests for a while in
the hollow that the ice has left, and then goes on over the edge as a stream. The lake is never the same
water, and it is always the same lake. People who walk up there in the summer say that it is the best place
to rest, because everything that falls on the slope above comes together in it, and nothing is lost.

The program that you are reading about works like that. A question comes in, and the machine has to read
it before it can answer. Reading a long question takes a long time, and reading the same question again
takes the same time again. So the machine keeps what it has read. When the next question begins with the
same words, the machine does not have to read those words again: it takes what it has kept and begins
where the new words begin. The more it keeps, the less it has to read, and the sooner the first word of
the answer comes back.

There are two kinds of work. The first kind reads all the words of a question at once. It needs a lot of
arithmetic, and the memory waits. The second kind writes the answer, one word after another. It needs a lot
of memory, and the arithmetic waits. If one machine does both kinds of work, then each kind of work gets in
the way of the other. So we let one machine read and another machine write. What the first machine has
read has to get to the second machine, and it has to get there quickly. That is what the lake is for.

What is the answer? The answer is that there is no single answer. What do you want to know? I want to know
how it works. How does it work? It works by keeping the keys and the values of every layer for every token.
Who keeps them? The nodes keep them: in the memory of the accelerator while they are hot, in the memory of
the machine while they are warm, and on the disk when they are cold. When are they thrown away? When there
is no room for them, and when something else is worth more. Can I read them from another machine? You can.
Where are they? The directory will tell you. What if the directory is wrong? Then you will find that the
header does not match, and you will read the words again. That costs time, but it does not cost anything
else, and the answer will be the same answer.

Once upon a time there was a king who had three sons. The eldest son was strong, the second son was clever,
and the youngest son was kind. One day the king said to them: "My sons, I am old, and I do not know which of
you should have the kingdom when I am gone. Go out into the world, and come back in a year and a day. The
one who brings me the most wonderful thing shall be king after me." So the three sons went out into the
world. The eldest went to the north, and the second went to the south, but the youngest did not know where
to go. He sat down by the side of the road, and there he met an old woman. "Why are you so sad?" said the
old woman. "I am not sad," said the youngest son, "but I do not know where to go." "Then come with me,"
said the old woman, "and I will show you something that nobody has ever seen."

It's a good day, isn't it? I'm sure that we'll see them, and they're sure that they've seen us. He'd have
gone if she hadn't said that it wasn't time. Don't you think that you can't do what you don't want to do?
You'll see. That's what I've said, and I didn't say anything else. Let's go, then. We're late already.

Hello! Hello, how are you? I am fine, thank you. How can I help you today? Please write a short story about
a dog and a cat. Please explain how a computer works. Please translate the following sentence into English.
Give me a list of five cities, and say which of them is the largest. Thank you very much for your help.
You are a helpful assistant. The user asks a question and the assistant gives a short and correct answer.

The first, the second, the third, the fourth and the fifth. On Monday, Tuesday, Wednesday, Thursday, Friday,
Saturday and Sunday. In January, February, March, April, May, June, July, August, September, October,
November and December. The north, the south, the east and the west. One, two, three, four, five, six, seven,
eight, nine, ten, eleven, twelve, twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety, a hundred, a
thousand, a million. Red, green, blue, yellow, black and white. Water, fire, earth, wind, stone and wood.

Energy is the capacity to do work, and it can neither be made nor be destroyed: it can only change its form.
Light moves at 299,792,458 metres per second. Water freezes at 0 degrees and boils at 100 degrees. The year
has 365 days, 52 weeks and 12 months; a day has 24 hours, an hour has 60 minutes and a minute has 60 seconds.
In 1969 the first people walked on the moon. From 1990 to 2000, from 2000 to 2010, from 2010 to 2020, and in
2024, 2025 and 2026 the number of computers in the world has gone up and up: 1000, 2000, 4000, 8000, 16000.
12 + 30 = 42, 7 * 8 = 56, 100 / 4 = 25, 3.14159, 2.71828, 0.5, 0.25, 0.125, 1/2, 1/4, 50%, 99.9%, $10, $100.

山里有一个小湖。湖水从山上的雪里来,在这里休息一会儿,然后流下山去。湖里的水每天都不一样,可是湖还是那个湖。
人们说,这是休息的好地方,因为山上的一切都会流到湖里,什么也不会丢。
你好!你好吗?我很好,谢谢你。今天我可以帮你做什么?请写一个关于狗和猫的故事。请说明计算机是怎么工作的。
机器要先读问题,然后才能回答问题。读一个长的问题要很长的时间,所以机器会记住它读过的东西。下一个问题如果用同样的话开始,
机器就不用再读一次。我们让一台机器读,让另一台机器写。中国的人口很多,北京是中国的首都,上海是中国最大的城市。
一、二、三、四、五、六、七、八、九、十。今年是二〇二六年,现在是十一月,今天是星期日。我们都是学生,他们都是老师。

#include <string>
#include <vector>

namespace example {

// Returns the sum of all values.
int Sum(const std::vector<int>& values) {
  int sum = 0;
  for (int value : values) {
    sum += value;
  }
  return sum;
}

// Returns the largest value, or 0 if there is none.
int Largest(const std::vector<int>& values) {
  int largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] > largest) {
      largest = values[i];
    }
  }
  return largest;
}

}  // namespace example

def fibonacci(n):
    if n < 2:
        return n
    a, b = 0, 1
    for i in range(n):
        a, b = b, a + b
    return a

def main():
    numbers = [fibonacci(i) for i in range(10)]
    for number in numbers:
        print(number)
    if len(numbers) > 0:
        print("the last number is", numbers[-1])

if __name__ == "__main__":
    main()

{"name": "example", "version": "1.0", "values": [1, 2, 3], "enabled": true, "limit": null}
{"name": "another example", "version": "2.0", "values": [4, 5, 6], "enabled": false, "limit": 10}

<html>
  <head><title>Example</title></head>
  <body>
    <p>This is an example of a page.</p>
    <p>This is another example.</p>
  </body>
</html>

SELECT name, count(*) FROM users WHERE count > 10 GROUP BY name ORDER BY name;

## Summary

- The first point is that the lake keeps what the stream brings.
- The second point is that nothing is lost.
- The third point is that the answer is always the same.

1. Read the question.
2. Find what has been read before.
3. Read the rest.
4. Write the answer.
)corpus";

}  // namespace

std::string_view DemoCorpus() { return std::string_view(kCorpus).substr(1); }

}  // namespace tarn::engine
