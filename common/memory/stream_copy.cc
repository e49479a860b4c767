#include "common/memory/stream_copy.h"

#include <emmintrin.h>

#include <cstdint>
#include <cstring>
#include <iterator>

namespace tarn {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kMinBytes = size_t{32} << 10;  // smaller ones are likely to be used from cache
constexpr size_t kAhead = 512;                  // measured; past the end it does no harm

// SSE2 is as fast as wider stores here: a write-combining buffer is one line with all of them.
void StreamLine(std::byte* to, const std::byte* from) {
  _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead, _MM_HINT_NTA);
  __m128i lane[kLine / sizeof(__m128i)];
  for (size_t i = 0; i < std::size(lane); ++i) {
    lane[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + i);
  }
  for (size_t i = 0; i < std::size(lane); ++i) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, lane[i]);
  }
}

}  // namespace

void StreamCopy(std::byte* to, const std::byte* from, size_t size) {
  if (size < kMinBytes) {
    if (size > 0) std::memcpy(to, from, size);
    return;
  }
  const size_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
  std::memcpy(to, from, head);
  size_t at = head;
  for (; at + kLine <= size; at += kLine) StreamLine(to + at, from + at);
  std::memcpy(to + at, from + at, size - at);
  _mm_sfence();
}

}  // namespace tarn
