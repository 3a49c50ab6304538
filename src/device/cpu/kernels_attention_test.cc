// Attention on pages, every instruction set, against plain loops in double.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "base/dtype.h"
#include "device/cpu/kernels.h"

namespace steelyard::cpu {
namespace {

struct Case {
  DType type;
  std::uint32_t kv_heads, group, dim_k, dim_v, window;
  float softcap;
  bool sinks;
  std::uint32_t tokens;
};

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16}) {
    if (isa_available(isa)) all.push_back(isa);
  }
  return all;
}

std::vector<float> random_floats(std::size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

std::byte* aligned(std::vector<std::byte>& v, std::size_t n) {
  v.assign(n + 64, std::byte{0xff});  // NaN in every type: what wasn't written must not be used
  const auto a = reinterpret_cast<std::uintptr_t>(v.data());
  return v.data() + (64 - a % 64) % 64;
}

// A sequence's KV in pages that lie in a scrambled order, and random queries.
class Sequence {
 public:
  Sequence(const Kernels& k, const Case& c) : k_(k), c_(c) {
    layout_ = {c.type, c.kv_heads, c.dim_k, c.dim_v};
    const std::uint32_t n_pages = (c.tokens + kPageTokens - 1) / kPageTokens;
    for (std::uint32_t p = 0; p < n_pages; ++p)
      table_.push_back(static_cast<std::int32_t>((n_pages - 1 - p) * 3));
    const std::uint64_t bytes = kv_page_bytes(layout_);
    pages_ = {aligned(storage_, bytes * 3 * n_pages), bytes, table_.data()};
    keys_ = random_floats(std::size_t{c.tokens} * c.kv_heads * c.dim_k, 1);
    values_ = random_floats(std::size_t{c.tokens} * c.kv_heads * c.dim_v, 2);
    heads_ = c.kv_heads * c.group;
    queries_ = random_floats(std::size_t{c.tokens} * heads_ * c.dim_k, 3);
    for (std::uint32_t i = 0; i < heads_; ++i) sinks_.push_back(0.3f * static_cast<float>(i));
    for (std::uint32_t t = 0; t < c.tokens; ++t) {
      k.append_kv(layout_, pages_, static_cast<std::int32_t>(t), key(t, 0), value(t, 0), 0, c.kv_heads);
    }
  }
  const float* key(std::uint32_t t, std::uint32_t h) const {
    return &keys_[(t * c_.kv_heads + h) * c_.dim_k];
  }
  const float* value(std::uint32_t t, std::uint32_t h) const {
    return &values_[(t * c_.kv_heads + h) * c_.dim_v];
  }
  std::size_t width() const { return std::size_t{heads_} * c_.dim_v; }

  AttentionArgs args(std::uint32_t first_row) const {
    return {layout_,
            pages_,
            heads_,
            queries_.data() + std::size_t{first_row} * heads_ * c_.dim_k,
            std::uint64_t{heads_} * c_.dim_k,
            scale(),
            c_.softcap,
            c_.window,
            c_.sinks ? sinks_.data() : nullptr};
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(c_.dim_k)); }

  // Rows [begin, end) in one call.
  std::vector<float> tiled(std::uint32_t begin, std::uint32_t end) const {
    std::vector<float> out(width() * (end - begin), NAN);
    std::vector<std::byte> scratch;
    std::byte* s = aligned(scratch, attention_scratch_bytes(c_.group, c_.dim_v));
    for (std::uint32_t h = 0; h < c_.kv_heads; ++h)
      k_.attention(args(begin), h, 0, end - begin, static_cast<std::int32_t>(begin), out.data(), width(), s);
    return out;
  }
  // One row, chunk by chunk.
  std::vector<float> chunked(std::uint32_t row) const {
    std::vector<float> out(width(), NAN);
    const auto position = static_cast<std::int32_t>(row);
    const std::uint32_t first = first_chunk(position, c_.window), n = end_chunk(position) - first;
    const std::uint32_t size = partial_floats(c_.dim_v);
    std::vector<std::byte> memory;
    auto* partials = reinterpret_cast<float*>(aligned(memory, std::size_t{n} * c_.group * size * 4));
    for (std::uint32_t h = 0; h < c_.kv_heads; ++h) {
      for (std::uint32_t i = 0; i < n; ++i)
        k_.attention_chunk(args(row), h, 0, position, first + i, partials + std::size_t{i} * c_.group * size);
      for (std::uint32_t g = 0; g < c_.group; ++g) {
        const std::uint32_t head = h * c_.group + g;
        k_.attention_merge(partials + g * size, std::uint64_t{c_.group} * size, n, c_.dim_v,
                           c_.sinks ? &sinks_[head] : nullptr, out.data() + head * c_.dim_v);
      }
    }
    return out;
  }
  std::vector<double> reference(std::uint32_t row) const {
    std::vector<double> out(width());
    for (std::uint32_t head = 0; head < heads_; ++head) {
      const std::uint32_t h = head / c_.group;
      const std::uint32_t first = c_.window != 0 && row >= c_.window ? row - c_.window + 1 : 0;
      std::vector<double> s;
      for (std::uint32_t t = first; t <= row; ++t) {
        double x = 0.0;
        for (std::uint32_t d = 0; d < c_.dim_k; ++d)
          x += static_cast<double>(queries_[(row * heads_ + head) * c_.dim_k + d]) * key(t, h)[d];
        x *= scale();
        s.push_back(c_.softcap > 0 ? c_.softcap * std::tanh(x / c_.softcap) : x);
      }
      double top = c_.sinks ? sinks_[head] : -1e30, sum = 0.0;
      for (const double x : s) top = std::max(top, x);
      if (c_.sinks) sum += std::exp(sinks_[head] - top);
      for (double& x : s) sum += x = std::exp(x - top);
      for (std::uint32_t t = first; t <= row; ++t)
        for (std::uint32_t d = 0; d < c_.dim_v; ++d)
          out[head * c_.dim_v + d] += s[t - first] / sum * value(t, h)[d];
    }
    return out;
  }

 private:
  const Kernels& k_;
  Case c_;
  KvLayout layout_;
  KvPages pages_;
  std::uint32_t heads_ = 0;
  std::vector<std::int32_t> table_;
  std::vector<std::byte> storage_;
  std::vector<float> keys_, values_, queries_, sinks_;
};

const Case kCases[] = {
    {DType::F32, 1, 1, 64, 64, 0, 0.0f, false, 70},    {DType::F16, 3, 3, 64, 64, 0, 0.0f, false, 300},
    {DType::Q8_0, 3, 3, 64, 64, 0, 0.0f, false, 300},  {DType::F16, 1, 4, 256, 256, 100, 0.0f, false, 290},
    {DType::F16, 2, 2, 96, 80, 33, 20.0f, true, 280},  {DType::Q8_0, 1, 2, 96, 48, 40, 30.0f, true, 150},
    {DType::F32, 2, 1, 8, 24, 0, 0.0f, true, 40},      {DType::Q8_0, 1, 40, 16, 8, 0, 0.0f, false, 35},
    {DType::F16, 1, 7, 128, 128, 1, 0.0f, false, 200},
};

TEST(Attention, MatchesTheReference) {
  for (const Isa isa : isas()) {
    for (const Case& c : kCases) {
      const Sequence s(kernels(isa), c);
      const auto out = s.tiled(0, c.tokens);
      // f16 keys move a score by about 2^-12 of its terms' size, int8 ones by 1/250 of the largest; inputs
      // are ~1.
      const double tolerance = c.type == DType::F32 ? 3e-6 : c.type == DType::F16 ? 4e-3 : 6e-2;
      for (std::uint32_t r = 0; r < c.tokens; ++r) {
        const auto expected = s.reference(r);
        for (std::size_t i = 0; i < s.width(); ++i)
          ASSERT_NEAR(out[r * s.width() + i], expected[i], tolerance)
              << isa_name(isa) << " case " << &c - kCases << " row " << r << " value " << i;
      }
    }
  }
}

TEST(Attention, ChunkingAndCompanyDontChangeARowsBits) {
  for (const Isa isa : isas()) {
    for (const Case& c : kCases) {
      const Sequence s(kernels(isa), c);
      const auto all = s.tiled(0, c.tokens);
      const auto same = [&](const std::vector<float>& rows, std::uint32_t begin, const char* how) {
        for (std::size_t i = 0; i < rows.size(); ++i)
          ASSERT_EQ(rows[i], all[begin * s.width() + i])
              << isa_name(isa) << " case " << &c - kCases << " " << how << begin;
      };
      for (std::uint32_t r = 0; r < c.tokens; r += 3) {
        same(s.chunked(r), r, "chunked row ");
        same(s.tiled(r, std::min(c.tokens, r + 1 + r % 17)), r, "rows from ");
      }
    }
  }
}

}  // namespace
}  // namespace steelyard::cpu
