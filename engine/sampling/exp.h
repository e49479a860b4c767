#pragma once

// exp() for weights of tokens, the same bits on every machine.
//
// libm's differs between CPUs (it chooses FMA at run time), which would let two nodes draw
// different tokens; and compilers cannot vectorise it. This one is multiplications and additions
// only.

#include <bit>
#include <cstdint>

namespace tarn::engine {

// exp(x) for x <= 0, relative error below 2e-7; 0 below -87 (and for -infinity). x is not NaN.
inline float ExpOfNegative(float x) {
  constexpr float kLog2e = 1.44269504f;
  // ln 2 in two parts: the first has few enough bits that n * kLn2High is exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Adding 1.5 * 2^23 rounds to an integer, which then is in the low bits.
  constexpr float kRound = 12582912.0f;
  const float clamped = x > -87.0f ? x : -87.0f;
  const float shifted = clamped * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  // Taylor to the sixth power: |r| <= 0.347, so the next term is below 1.2e-7.
  float sum = 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const uint32_t scale = (std::bit_cast<uint32_t>(shifted) - 0x4B400000u + 127u) << 23;
  const float result = sum * std::bit_cast<float>(scale);
  return x > -87.0f ? result : 0.0f;
}

}  // namespace tarn::engine
