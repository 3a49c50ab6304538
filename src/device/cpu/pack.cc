#include "device/cpu/pack.h"

#include <cstring>

#include "device/cpu/kernels.h"
#include "quant/blocks.h"
#include "quant/codebooks.h"
#include "quant/half.h"
#include "quant/quant.h"

namespace steelyard::cpu {
namespace {

using Bytes = const std::uint8_t*;

std::uint32_t load_u32(Bytes p) {
  std::uint32_t x;
  std::memcpy(&x, p, 4);
  return x;
}
std::uint16_t load_u16(Bytes p) {
  std::uint16_t x;
  std::memcpy(&x, p, 2);
  return x;
}
void store_u32(std::uint8_t* p, std::uint32_t x) { std::memcpy(p, &x, 4); }

// Bytes per record of 16 rows, and columns per record.
struct Record {
  std::uint32_t bytes, cols;
};
Record record(DType type) {
  switch (type) {
    case DType::F16:
      return {32, 1};
    case DType::BF16:
      return {64, 2};
    case DType::F32:
      return {64, 1};
    default:
      break;
  }
  const DTypeInfo& info = dtype_info(type);
  return {kRowGroup * info.block_bytes, info.block};
}

// Codes of one row's block of 32 columns: 8 words of 4 neighbouring columns.
struct Codes {
  std::uint32_t q[8];
};

constexpr std::uint32_t kLow = 0x0f0f0f0f, kOnes = 0x01010101, kTwos = 0x03030303;

void put_nibbles(const Codes& c, std::uint32_t lane, std::uint8_t* tiles) {
  for (int t = 0; t < 4; ++t)
    store_u32(tiles + 64 * t + 4 * lane, (c.q[t] & kLow) | (c.q[t + 4] & kLow) << 4);
}
void put_high_bits(const Codes& c, std::uint32_t lane, std::uint8_t* tile) {
  std::uint32_t h = 0;
  for (int g = 0; g < 8; ++g) h |= (c.q[g] >> 4 & kOnes) << g;
  store_u32(tile + 4 * lane, h);
}
void put_high_pairs(const Codes& c, std::uint32_t lane, std::uint8_t* tiles) {
  for (int t = 0; t < 2; ++t) {
    std::uint32_t h = 0;
    for (int j = 0; j < 4; ++j) h |= (c.q[4 * t + j] >> 4 & kTwos) << (2 * j);
    store_u32(tiles + 64 * t + 4 * lane, h);
  }
}

Codes nibbles(Bytes qs) {
  Codes c;
  for (int t = 0; t < 4; ++t) {
    const std::uint32_t x = load_u32(qs + 4 * t);
    c.q[t] = x & kLow;
    c.q[t + 4] = x >> 4 & kLow;
  }
  return c;
}
// Adds 32 high bits, column c's at bit c.
void add_bits(std::uint32_t bits, Codes& c) {
  for (int g = 0; g < 8; ++g) c.q[g] |= ((bits >> (4 * g) & 15u) * 0x00204081u & kOnes) << 4;
}

void pack_block32(DType type, Bytes src, std::uint32_t lane, std::uint8_t* dst) {
  if (type == DType::MXFP4) {
    dst[lane] = src[0];
    return put_nibbles(nibbles(src + 1), lane, dst + kRowGroup);
  }
  const bool minimum = type == DType::Q4_1 || type == DType::Q5_1;
  const bool high = type == DType::Q5_0 || type == DType::Q5_1;
  std::memcpy(dst + 2 * lane, src, 2);
  if (minimum) std::memcpy(dst + 32 + 2 * lane, src + 2, 2);
  src += minimum ? 4 : 2;
  dst += minimum ? 64 : 32;
  if (type == DType::Q8_0) {
    for (int t = 0; t < 8; ++t) store_u32(dst + 64 * t + 4 * lane, load_u32(src + 4 * t) ^ 0x80808080u);
    return;
  }
  Codes c = nibbles(src + (high ? 4 : 0));
  if (high) {
    add_bits(load_u32(src), c);
    put_high_bits(c, lane, dst);
    dst += 64;
  }
  put_nibbles(c, lane, dst);
}

// Scale and minimum of block j from the 12 bytes (formats: Q4_K, Q5_K).
void scale_min(Bytes s, int j, std::uint32_t* scale, std::uint32_t* minimum) {
  if (j < 4) {
    *scale = s[j] & 63u;
    *minimum = s[j + 4] & 63u;
  } else {
    *scale = (s[j + 4] & 15u) | (s[j - 4] >> 6 << 4);
    *minimum = static_cast<std::uint32_t>(s[j + 4] >> 4) | (s[j] >> 6 << 4);
  }
}

void pack_k45(bool five, Bytes src, std::uint32_t lane, std::uint8_t* dst) {
  std::memcpy(dst + 2 * lane, src, 2);
  std::memcpy(dst + 32 + 2 * lane, src + 2, 2);
  std::uint32_t scale[8], minimum[8];
  for (int j = 0; j < 8; ++j) scale_min(src + 4, j, &scale[j], &minimum[j]);
  for (int k = 0; k < 4; ++k) {
    std::uint8_t* p = dst + 64 + 4 * lane + k;
    p[0] = static_cast<std::uint8_t>(scale[k] | (minimum[k + 4] & 3u) << 6);
    p[64] = static_cast<std::uint8_t>(scale[k + 4] | (minimum[k + 4] >> 2 & 3u) << 6);
    p[128] = static_cast<std::uint8_t>(minimum[k] | (minimum[k + 4] >> 4 & 3u) << 6);
  }
  Bytes qh = src + 16, qs = src + (five ? 48 : 16);
  dst += 256;
  for (int b = 0; b < 8; ++b) {
    Codes c;
    for (int g = 0; g < 8; ++g) {
      c.q[g] = load_u32(qs + 32 * (b / 2) + 4 * g) >> (b % 2 * 4) & kLow;
      if (five) c.q[g] |= (load_u32(qh + 4 * g) >> b & kOnes) << 4;
    }
    if (five) {
      put_high_bits(c, lane, dst);
      dst += 64;
    }
    put_nibbles(c, lane, dst);
    dst += 256;
  }
}

void pack_q6_k(Bytes src, std::uint32_t lane, std::uint8_t* dst) {
  Bytes ql = src, qh = src + 128, scales = src + 192;
  std::memcpy(dst + 2 * lane, src + 208, 2);
  for (int j = 0; j < 4; ++j) std::memcpy(dst + 32 + 64 * j + 4 * lane, scales + 4 * j, 4);
  dst += 288;
  for (int b = 0; b < 8; ++b, dst += 384) {
    const int half = b / 4, quarter = b % 4;
    Codes c;
    for (int g = 0; g < 8; ++g) {
      const std::uint32_t low =
          load_u32(ql + 64 * half + quarter % 2 * 32 + 4 * g) >> (quarter / 2 * 4) & kLow;
      const std::uint32_t high = load_u32(qh + 32 * half + 4 * g) >> (2 * quarter) & kTwos;
      c.q[g] = low | high << 4;
    }
    put_high_pairs(c, lane, dst);
    put_nibbles(c, lane, dst + 128);
  }
}

void pack_record(DType type, Bytes src, std::uint32_t lane, std::uint8_t* dst) {
  switch (type) {
    case DType::Q4_K:
      return pack_k45(false, src, lane, dst);
    case DType::Q5_K:
      return pack_k45(true, src, lane, dst);
    case DType::Q6_K:
      return pack_q6_k(src, lane, dst);
    default:
      return pack_block32(type, src, lane, dst);
  }
}

void pack_float_row(DType type, Bytes src, std::uint64_t cols, std::uint32_t lane, std::uint8_t* dst) {
  for (std::uint64_t c = 0; c < cols; ++c) {
    if (type == DType::F32) std::memcpy(dst + c * 64 + 4 * lane, src + 4 * c, 4);
    if (type == DType::F16) std::memcpy(dst + c * 32 + 2 * lane, src + 2 * c, 2);
    if (type == DType::BF16) std::memcpy(dst + c / 2 * 64 + 4 * lane + c % 2 * 2, src + 2 * c, 2);
  }
}

std::uint64_t group_bytes(DType type, std::uint64_t cols) {
  const Record r = record(type);
  return (cols + r.cols - 1) / r.cols * r.bytes;
}

// ---- Reading back
// -------------------------------------------------------------------------------------------
std::uint32_t code(const std::uint8_t* tiles, std::uint32_t lane, std::uint32_t col) {
  const std::uint8_t byte = tiles[col % 16 / 4 * 64 + 4 * lane + col % 4];
  return col < 16 ? byte & 15u : byte >> 4;
}
std::uint32_t high_bit(const std::uint8_t* tile, std::uint32_t lane, std::uint32_t col) {
  return (tile[4 * lane + col % 4] >> (col / 4) & 1u) << 4;
}
std::uint32_t high_pair(const std::uint8_t* tiles, std::uint32_t lane, std::uint32_t col) {
  return (tiles[col / 16 * 64 + 4 * lane + col % 4] >> (col % 16 / 4 * 2) & 3u) << 4;
}
float half_at(const std::uint8_t* p, std::uint32_t lane) { return half_to_float(load_u16(p + 2 * lane)); }

void unpack_block32(DType type, const std::uint8_t* p, std::uint32_t lane, float* out) {
  const bool minimum = type == DType::Q4_1 || type == DType::Q5_1;
  const bool high = type == DType::Q5_0 || type == DType::Q5_1;
  const float d = half_at(p, lane), m = minimum ? half_at(p + 32, lane) : 0.0f;
  const float offset = type == DType::Q4_0   ? 8.0f
                       : type == DType::Q5_0 ? 16.0f
                       : type == DType::Q8_0 ? 128.0f
                                             : 0.0f;
  const std::uint8_t* bits = p + (minimum ? 64 : 32);
  const std::uint8_t* tiles = bits + (high ? 64 : 0);
  for (std::uint32_t c = 0; c < 32; ++c) {
    const std::uint32_t q = type == DType::Q8_0
                                ? tiles[c / 4 * 64 + 4 * lane + c % 4]
                                : code(tiles, lane, c) | (high ? high_bit(bits, lane, c) : 0u);
    out[c] = minimum ? d * static_cast<float>(q) + m : d * (static_cast<float>(q) - offset);
  }
}

// Types whose codes stand for values of a table.
void unpack_table(DType type, const std::uint8_t* p, std::uint32_t lane, float* out) {
  const bool fp4 = type == DType::MXFP4;
  const float d = fp4 ? mxfp4_scale(p[lane]) : half_at(p, lane);
  const auto& values = fp4 ? kMxfp4Values : kIq4Values;
  for (std::uint32_t c = 0; c < 32; ++c) out[c] = d * values[code(p + (fp4 ? kRowGroup : 32), lane, c)];
}

void unpack_k45(bool five, const std::uint8_t* p, std::uint32_t lane, float* out) {
  const float d = half_at(p, lane), dmin = half_at(p + 32, lane);
  const std::uint8_t* q = p + 256;
  for (std::uint32_t b = 0; b < 8; ++b, q += five ? 320 : 256) {
    const std::uint8_t* s = p + 64 + 4 * lane + b % 4;
    const std::uint32_t scale = (b < 4 ? s[0] : s[64]) & 63u;
    const std::uint32_t minimum =
        b < 4 ? s[128] & 63u : static_cast<std::uint32_t>(s[0] >> 6 | s[64] >> 6 << 2 | s[128] >> 6 << 4);
    const float ds = d * static_cast<float>(scale), dm = dmin * static_cast<float>(minimum);
    for (std::uint32_t c = 0; c < 32; ++c) {
      const std::uint32_t x = code(q + (five ? 64 : 0), lane, c) | (five ? high_bit(q, lane, c) : 0u);
      *out++ = ds * static_cast<float>(x) - dm;
    }
  }
}

void unpack_q6_k(const std::uint8_t* p, std::uint32_t lane, float* out) {
  const float d = half_at(p, lane);
  const std::uint8_t* q = p + 288;
  for (std::uint32_t b = 0; b < 8; ++b, q += 384) {
    for (std::uint32_t c = 0; c < 32; ++c) {
      const std::uint32_t k = 2 * b + c / 16;
      const auto scale = static_cast<std::int8_t>(p[32 + k / 4 * 64 + 4 * lane + k % 4]);
      const int x = static_cast<int>(code(q + 128, lane, c) | high_pair(q, lane, c)) - 32;
      *out++ = d * static_cast<float>(scale) * static_cast<float>(x);
    }
  }
}

void unpack_float_row(DType type, const std::uint8_t* p, std::uint32_t lane, std::uint32_t cols, float* out) {
  for (std::uint64_t c = 0; c < cols; ++c) {
    if (type == DType::F32) std::memcpy(out + c, p + c * 64 + 4 * lane, 4);
    if (type == DType::F16) out[c] = half_at(p + c * 32, lane);
    if (type == DType::BF16) out[c] = bf16_to_float(load_u16(p + c / 2 * 64 + 4 * lane + c % 2 * 2));
  }
}

}  // namespace

bool is_packed(DType type) {
  return fast_type(type) || type == DType::F16 || type == DType::BF16 || type == DType::F32;
}

std::uint64_t packed_bytes(DType type, std::uint64_t rows, std::uint64_t cols) {
  if (!is_packed(type)) return row_bytes(type, cols) * rows;
  return (rows + kRowGroup - 1) / kRowGroup * group_bytes(type, cols);
}

std::uint64_t packed_row_offset(DType type, std::uint64_t cols, std::uint64_t row) {
  if (!is_packed(type)) return row_bytes(type, cols) * row;
  return row / kRowGroup * group_bytes(type, cols);
}

void pack(DType type, const std::byte* raw, std::uint64_t rows, std::uint64_t cols, std::uint64_t row_begin,
          std::uint64_t row_end, std::byte* dst, std::uint64_t stride) {
  const std::uint64_t bytes = row_bytes(type, cols);
  if (stride == 0) stride = bytes;
  if (!is_packed(type)) {
    for (std::uint64_t row = row_begin; row < row_end; ++row)
      std::memcpy(dst + row * bytes, raw + row * stride, bytes);
    return;
  }
  const Record rec = record(type);
  const std::uint32_t file_block = dtype_info(type).block_bytes;
  for (std::uint64_t row = row_begin; row < row_end; row += kRowGroup) {
    auto* group = reinterpret_cast<std::uint8_t*>(dst + packed_row_offset(type, cols, row));
    const auto lanes = static_cast<std::uint32_t>(rows - row < kRowGroup ? rows - row : kRowGroup);
    if (lanes < kRowGroup || (type == DType::BF16 && cols % 2 != 0))
      std::memset(group, 0, group_bytes(type, cols));
    auto* src = reinterpret_cast<Bytes>(raw + row * stride);
    if (dtype_info(type).block == 1) {
      for (std::uint32_t lane = 0; lane < lanes; ++lane)
        pack_float_row(type, src + lane * stride, cols, lane, group);
      continue;
    }
    for (std::uint64_t b = 0; b < cols / rec.cols; ++b) {
      for (std::uint32_t lane = 0; lane < lanes; ++lane)
        pack_record(type, src + lane * stride + b * file_block, lane, group + b * rec.bytes);
    }
  }
}

void dequantize_row(const PackedMatrix& m, std::uint32_t row, float* out) {
  const std::byte* at = m.data + packed_row_offset(m.type, m.cols, row);
  if (!is_packed(m.type)) return dequantize(m.type, at, m.cols, out);
  const std::uint32_t lane = row % kRowGroup;
  auto* p = reinterpret_cast<const std::uint8_t*>(at);
  if (dtype_info(m.type).block == 1) return unpack_float_row(m.type, p, lane, m.cols, out);
  const Record rec = record(m.type);
  for (std::uint32_t c = 0; c < m.cols; c += rec.cols, p += rec.bytes) {
    switch (m.type) {
      case DType::Q4_K:
        unpack_k45(false, p, lane, out + c);
        break;
      case DType::Q5_K:
        unpack_k45(true, p, lane, out + c);
        break;
      case DType::Q6_K:
        unpack_q6_k(p, lane, out + c);
        break;
      case DType::MXFP4:
      case DType::IQ4_NL:
        unpack_table(m.type, p, lane, out + c);
        break;
      default:
        unpack_block32(m.type, p, lane, out + c);
        break;
    }
  }
}

}  // namespace steelyard::cpu
