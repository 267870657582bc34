// Floating-point numbers of 16 bits, rounded to nearest even.
#pragma once
#include <bit>
#include <cstdint>

// `exponent_bits` of exponent and the rest, without the sign, of mantissa.
template <int exponent_bits> class NarrowFloat {
  static constexpr int mantissa = 15 - exponent_bits, dropped = 23 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
  // What lifts the exponents of this type to those of float.
  static constexpr float lift = std::bit_cast<float>(uint32_t(127 + 127 - bias) << 23);
  static constexpr uint32_t infinity = uint32_t((1 << exponent_bits) - 1) << mantissa;

 public:
  NarrowFloat() = default;
  NarrowFloat(double value) : NarrowFloat(static_cast<float>(value)) {}
  NarrowFloat(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000;
    const float size = std::bit_cast<float>(bits & 0x7FFFFFFF);
    uint32_t narrow;
    if (size != size) {
      narrow = infinity | 1u << (mantissa - 1);
    } else if (size < std::bit_cast<float>(uint32_t(127 - bias + 1) << 23)) {
      // Subnormal: a sum with a number whose last bit is that of the subnormals rounds to it.
      const float shift = std::bit_cast<float>(uint32_t(127 - bias + 1 + dropped) << 23);
      narrow = std::bit_cast<uint32_t>(size + shift) - std::bit_cast<uint32_t>(shift);
    } else {
      const uint32_t all = bits & 0x7FFFFFFF;
      const uint32_t rounded = all + (1u << (dropped - 1)) - 1 + (all >> dropped & 1);
      const uint32_t exponent_moved = rounded - (uint32_t(127 - bias) << 23);
      narrow = exponent_moved >> dropped;
      if (narrow > infinity) narrow = infinity;
    }
    bits_ = static_cast<uint16_t>(sign | narrow);
  }
  operator float() const {
    const uint32_t size = bits_ & 0x7FFF, sign = uint32_t(bits_ & 0x8000) << 16;
    if (size >= infinity) return std::bit_cast<float>(sign | 0x7F800000 | size << dropped);
    const float value = std::bit_cast<float>(size << dropped) * lift;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }

 private:
  uint16_t bits_;
};
