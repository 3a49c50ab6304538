// Speed of the CPU kernels one by one, as a share of this machine's measured ceilings.
//   kernels_bench [THREADS] [TYPE...]     e.g. kernels_bench 2 Q4_K Q8_0
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "base/split_range.h"
#include "base/thread_pool.h"
#include "device/cpu/kernels.h"
#include "device/cpu/probe.h"

namespace steelyard::cpu {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::byte* memory(std::uint64_t bytes) {  // never given back: a tool that ends soon
  const std::uint64_t unit = std::uint64_t{2} << 20;
  bytes = (bytes + unit) / unit * unit;
  auto* p = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{unit}));
  madvise(p, bytes, MADV_HUGEPAGE);
  std::memset(p, 0x11, bytes);
  return p;
}

struct Bench {
  const Kernels& k;
  ThreadPool pool;
  double bandwidth, dots, fmas;

  // Seconds per call of a product over `copies` matrices (so that weights come from memory), n rows.
  double product(DType type, std::uint32_t rows, std::uint32_t cols, std::uint32_t n, std::uint32_t copies) {
    const ActFormat format = fast_type(type) ? ActFormat::q8 : ActFormat::f32;
    const std::uint64_t bytes = packed_bytes(type, rows, cols);
    std::byte* w = memory(bytes * copies + 8192);
    const ActView x{format, cols, memory(act_bytes(format, n, cols))};
    std::vector<float> row(cols, 0.5f), y(std::size_t{n} * rows);
    for (std::uint32_t r = 0; r < n; ++r) k.quantize(row.data(), 0, cols, x, r);
    double best = 1e30;
    for (int run = 0; run < 5; ++run) {
      const double begin = now();
      pool.run([&](unsigned thread, unsigned threads) {
        const Range mine = split_range(rows / 16, thread, threads);
        for (std::uint32_t c = 0; c < copies; ++c) {
          MatmulArgs a{{type, rows, cols, w + c * bytes}, x, n, y.data(), rows};
          a.out_begin = mine.begin * 16;
          a.out_end = mine.end * 16;
          k.matmul(a);
          pool.barrier();
        }
      });
      best = std::min(best, (now() - begin) / copies);
    }
    return best;
  }

  void type(DType t) {
    for (const auto& [rows, cols] : {std::pair{1536u, 576u}, {2048u, 2048u}, {2048u, 8192u}}) {
      if (cols % dtype_info(t).block != 0) continue;
      const std::uint64_t bytes = packed_bytes(t, rows, cols);
      const auto copies = static_cast<std::uint32_t>((256u << 20) / bytes + 1);
      const double one = product(t, rows, cols, 1, copies), four = product(t, rows, cols, 4, copies);
      const double many = product(t, rows, cols, 256, 4);
      const double rate = 2.0 * rows * cols * 256 / many, peak = fast_type(t) ? dots : fmas;
      fmt::print(
          "{:5} {:5}x{:<5}  1 row {:5.1f} GB/s {:3.0f} %   4 rows {:5.1f} GB/s   256 rows {:6.0f} GOP/s "
          "{:3.0f} %\n",
          dtype_info(t).name, rows, cols, bytes / one / 1e9, 100 * bytes / one / bandwidth,
          bytes / four / 1e9, rate / 1e9, 100 * rate / peak);
    }
  }

  void attention(DType t, std::uint32_t kv_heads, std::uint32_t group, std::uint32_t dim, std::uint32_t depth,
                 std::uint32_t n) {
    const KvLayout layout{t, kv_heads, dim, dim};
    const std::uint32_t n_pages = (depth + n + kPageTokens - 1) / kPageTokens, layers = 8;
    const std::uint64_t page = kv_page_bytes(layout);
    std::byte* kv = memory(page * n_pages * layers);
    std::vector<std::int32_t> table(n_pages);
    for (std::uint32_t i = 0; i < n_pages; ++i) table[i] = static_cast<std::int32_t>(i);
    std::vector<float> q(std::size_t{n} * kv_heads * group * dim, 0.01f), out(q.size());
    std::byte* scratch = memory(pool.size() * attention_scratch_bytes(group, dim));
    double best = 1e30;
    for (int run = 0; run < 5; ++run) {
      const double begin = now();
      pool.run([&](unsigned thread, unsigned threads) {
        for (std::uint32_t l = 0; l < layers; ++l) {
          AttentionArgs a{layout,   {kv + l * page * n_pages, page, table.data()}, kv_heads * group,
                          q.data(), std::uint64_t{kv_heads} * group * dim,         0.1f};
          const std::uint32_t tiles = (n + 15) / 16, tasks = tiles * kv_heads;
          for (std::uint32_t task = thread; task < tasks; task += threads)
            k.attention(a, task % kv_heads, task / kv_heads * 16, std::min(n, task / kv_heads * 16 + 16),
                        static_cast<std::int32_t>(depth), out.data(), a.q_stride,
                        scratch + thread * attention_scratch_bytes(group, dim));
        }
      });
      best = std::min(best, (now() - begin) / layers);
    }
    const double keys = n * (depth + 0.5 * n), rate = keys * kv_heads * group * dim * 4 / best;
    fmt::print(
        "attention {:4} {}x{} heads of {:3}, depth {:5}, {:3} rows: {:8.1f} us, {:5.1f} GFLOP/s {:3.0f} %, "
        "{:5.1f} GB/s\n",
        dtype_info(t).name, kv_heads, group, dim, depth, n, best * 1e6, rate / 1e9, 100 * rate / fmas,
        static_cast<double>(page) * (depth + n) / kPageTokens / best / 1e9);
  }

  void small() {
    std::vector<float> x(4096, 0.5f), w(4096, 1.0f);
    const ActView act{ActFormat::q8, 2048, memory(act_bytes(ActFormat::q8, 1, 2048))};
    const auto time = [](const char* name, auto fn) {
      const double begin = now();
      for (int i = 0; i < 20000; ++i) fn();
      fmt::print("{}: {:.0f} ns\n", name, (now() - begin) / 20000 * 1e9);
    };
    time("rms_norm_quantize 2048", [&] { k.rms_norm_quantize(x.data(), w.data(), 1e-5f, act, 0); });
    time("quantize 2048", [&] { k.quantize(x.data(), 0, 2048, act, 0); });
    time("rms_norm 2048", [&] { k.rms_norm(x.data(), w.data(), 1e-5f, 2048, w.data() + 2048 - 2048); });
    time("exp_sub 2048", [&] { k.exp_sub(x.data(), 1.0f, 2048, w.data()); });
    const double begin = now();
    pool.run([&](unsigned, unsigned) {
      for (int i = 0; i < 20000; ++i) pool.barrier();
    });
    fmt::print("barrier: {:.0f} ns\n", (now() - begin) / 20000 * 1e9);
  }
};

}  // namespace
}  // namespace steelyard::cpu

int main(int argc, char** argv) {
  using namespace steelyard;
  using namespace steelyard::cpu;
  const unsigned threads = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 0;
  const Isa isa = choose_isa();
  Bench b{kernels(isa), ThreadPool(threads), 0, 0, 0};
  const std::uint64_t beyond_caches[] = {std::uint64_t{512} << 20};
  b.bandwidth = measure_read_bandwidth(isa, b.pool.size(), beyond_caches).bytes_per_second.front();
  b.dots = measure_dot_rate(isa, b.pool.size());
  b.fmas = measure_fma_rate(isa, b.pool.size());
  fmt::print("{} threads, {}: read {:.1f} GB/s, int8 {:.0f} GOP/s, f32 {:.0f} GFLOP/s\n", b.pool.size(),
             isa_name(isa), b.bandwidth / 1e9, b.dots / 1e9, b.fmas / 1e9);
  std::vector<DType> types;
  for (int i = 2; i < argc; ++i)
    if (const auto t = find_dtype(std::string_view(argv[i]))) types.push_back(t->type);
  if (argc <= 2)
    types = {DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::F16};
  for (const DType t : types) b.type(t);
  if (argc > 2) return 0;
  b.attention(DType::F16, 3, 3, 64, 0, 512);
  b.attention(DType::F16, 1, 4, 256, 0, 512);
  b.attention(DType::F16, 8, 4, 64, 0, 512);
  b.attention(DType::F16, 8, 4, 64, 2048, 1);
  b.attention(DType::Q8_0, 8, 4, 64, 2048, 1);
  b.small();
}
