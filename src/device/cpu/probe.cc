#include "device/cpu/probe.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "base/split_range.h"
#include "base/thread_pool.h"

namespace steelyard::cpu {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Seconds {
  double best = 1e30, worst = 0;
};
// A few runs of fn(thread, n): what else the machine does can only make them slower.
template <typename Fn>
Seconds time_runs(ThreadPool& pool, int runs, const Fn& fn) {
  Seconds seconds;
  for (int i = 0; i < runs; ++i) {
    const double begin = now();
    pool.run(fn);
    const double took = now() - begin;
    seconds = {std::min(seconds.best, took), std::max(seconds.worst, took)};
  }
  return seconds;
}

template <typename Fn>
double best_seconds(ThreadPool& pool, int runs, const Fn& fn) {
  return time_runs(pool, runs, fn).best;
}

struct Free {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{std::size_t{2} << 20}); }
};
using Memory = std::unique_ptr<std::byte, Free>;

Memory make_memory(std::uint64_t bytes) {
  const std::uint64_t unit = std::uint64_t{2} << 20;
  bytes = (bytes + unit - 1) / unit * unit;
  Memory m(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{unit})));
  madvise(m.get(), bytes, MADV_HUGEPAGE);
  std::memset(m.get(), 0x11, bytes);
  return m;
}

}  // namespace

ReadRates measure_read_bandwidth(Isa isa, unsigned threads, std::span<const std::uint64_t> sizes) {
  const Memory memory = make_memory(*std::ranges::max_element(sizes) + 4096);
  const Kernels& k = kernels(isa);
  ThreadPool pool(threads);
  ReadRates rates;
  for (const std::uint64_t part : sizes) {
    const std::uint64_t each = part / pool.size() / 512 * 512;
    const auto read = [&](unsigned thread, unsigned) {
      volatile std::uint64_t sink = k.read_all(memory.get() + thread * each, each);
      (void)sink;
    };
    pool.run(read);  // what fits into caches gets there
    const Seconds seconds = time_runs(pool, 9, read);
    rates.bytes_per_second.push_back(static_cast<double>(each * pool.size()) / seconds.best);
    rates.spread = (seconds.worst - seconds.best) / seconds.best;
  }
  return rates;
}

double measure_dot_rate(Isa isa, unsigned threads) {
  const std::uint64_t spins = isa == Isa::portable ? 100'000 : 4'000'000;
  ThreadPool pool(threads);
  const double seconds = best_seconds(pool, 5, [&](unsigned, unsigned) {
    volatile std::uint64_t sink = kernels(isa).spin_dots(spins);
    (void)sink;
  });
  return 2.0 * static_cast<double>(kDotsPerSpin * spins) * pool.size() / seconds;
}

double measure_fma_rate(Isa isa, unsigned threads) {
  const std::uint64_t spins = isa == Isa::portable ? 400'000 : 4'000'000;
  ThreadPool pool(threads);
  const double seconds = best_seconds(pool, 5, [&](unsigned, unsigned) {
    volatile std::uint64_t sink = kernels(isa).spin_fmas(spins);
    (void)sink;
  });
  return 2.0 * static_cast<double>(kFmasPerSpin * spins) * pool.size() / seconds;
}

double measure_multiply_rate(Isa isa, DType type, unsigned threads) {
  const std::uint32_t rows = 512, cols = 1024, n = 256;
  const ActFormat format = fast_type(type) ? ActFormat::q8 : ActFormat::f32;
  const Kernels& k = kernels(isa);
  const Memory weights = make_memory(packed_bytes(type, rows, cols));
  const Memory acts = make_memory(act_bytes(format, n, cols));
  std::vector<float> y(std::size_t{rows} * n), x(cols);
  for (std::uint32_t i = 0; i < cols; ++i) x[i] = static_cast<float>(i % 17) - 8.0f;
  const ActView view{format, cols, acts.get()};
  for (std::uint32_t r = 0; r < n; ++r) k.quantize(x.data(), 0, cols, view, r);
  ThreadPool pool(threads);
  const PackedMatrix w{type, rows, cols, weights.get()};
  const double seconds = best_seconds(pool, 5, [&](unsigned thread, unsigned count) {
    const Range mine = split_range(rows / kRowGroup, thread, count);
    MatmulArgs a{w, view, n, y.data(), rows};
    a.out_begin = mine.begin * kRowGroup;
    a.out_end = mine.end * kRowGroup;
    k.matmul(a);
  });
  return 2.0 * rows * cols * n / seconds;
}

}  // namespace steelyard::cpu
