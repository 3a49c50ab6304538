// The CPU as a device: what it is, its memory, weights placed, programs compiled.
#include "device/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <string>

#include "base/dtype.h"
#include "base/error.h"
#include "base/process.h"
#include "base/split_range.h"
#include "base/units.h"
#include "device/cpu/executable.h"
#include "device/cpu/probe.h"
#include "program/program.h"

namespace steelyard {
namespace {

using namespace cpu;

std::uint64_t proc_value(const char* path, std::string_view key) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line))
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  return 0;
}

std::string cpu_model_name() {
  std::ifstream in("/proc/cpuinfo");
  std::string line;
  while (std::getline(in, line))
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "CPU";
}

// Bytes that the arenas of one device hold, against its limit. Shared with the arenas, which may outlive the
// device.
class Account {
 public:
  explicit Account(std::uint64_t limit) : limit_(limit) {}
  void take(std::string_view purpose, std::uint64_t bytes) {
    const std::uint64_t before = used_.fetch_add(bytes);
    const std::uint64_t free = available_bytes();
    const std::uint64_t left = limit_ > before ? limit_ - before : 0;
    const bool limited = limit_ > 0 && left < free;
    const std::uint64_t room = limited ? left : free;
    if (bytes <= room) return;
    used_ -= bytes;
    throw_error(ErrorKind::no_memory,
                "{} for {} don't fit into the {} {}; a smaller context, a smaller KV type or fewer "
                "parallel sequences need less",
                size_text(bytes, Rounding::up), purpose, size_text(room, Rounding::down),
                limited ? "that the memory limit leaves" : "that are free");
  }
  void give_back(std::uint64_t bytes) { used_ -= bytes; }

 private:
  std::uint64_t limit_;
  std::atomic<std::uint64_t> used_{0};
};

// Bytes of a file that are placed before its pages are given back.
constexpr std::uint64_t kPieceBytes = std::uint64_t{4} << 20;

// Anonymous memory, every page touched at once: what is planned is resident, and no step faults a page in.
class CpuArena final : public Arena {
 public:
  CpuArena(std::shared_ptr<Account> account, std::string_view purpose, std::uint64_t bytes)
      : account_(std::move(account)), bytes_(bytes) {
    account_->take(purpose, bytes);
    mapped_ = std::max<std::uint64_t>(bytes, 1);
    void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      account_->give_back(bytes);
      throw_error(ErrorKind::no_memory,
                  "the system refused {} for {} ({}); a smaller context, a smaller KV type or fewer "
                  "parallel sequences need less",
                  size_text(bytes), purpose, std::strerror(errno));
    }
    data_ = static_cast<std::byte*>(p);
    madvise(p, mapped_, MADV_HUGEPAGE);
    touch();
  }
  ~CpuArena() override {
    munmap(data_, mapped_);
    account_->give_back(bytes_);
  }
  std::byte* data() override { return data_; }
  std::uint64_t bytes() const override { return bytes_; }

 private:
  void touch() {
#ifdef MADV_POPULATE_WRITE
    if (madvise(data_, mapped_, MADV_POPULATE_WRITE) == 0) return;
#endif
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    for (std::uint64_t at = 0; at < mapped_; at += page)
      reinterpret_cast<volatile std::byte*>(data_)[at] = std::byte{0};
  }

  std::shared_ptr<Account> account_;
  std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0, mapped_ = 0;
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const CpuOptions& options)
      : isa_(choose_isa()),
        account_(std::make_shared<Account>(options.memory_limit)),
        limit_(options.memory_limit),
        queue_(options.threads) {
    info_ = {.id = "CPU",
             .name = cpu_model_name(),
             .threads = queue_.threads(),
             .kernels = isa_name(isa_),
             .memory_bytes = proc_value("/proc/meminfo", "MemTotal:")};
  }

  const DeviceInfo& info() const override { return info_; }
  const Target& target() const override { return cpu_target(); }
  DeviceMemory memory() const override {
    const std::uint64_t free = available_bytes();
    return {limit_ ? std::min(limit_, info_.memory_bytes) : info_.memory_bytes,
            limit_ ? std::min(limit_, free) : free};
  }
  DeviceRates measure_rates() override;
  std::unique_ptr<Arena> make_arena(std::string_view purpose, std::uint64_t bytes) override {
    return std::make_unique<CpuArena>(account_, purpose, bytes);
  }
  std::unique_ptr<Arena> make_host_arena(std::string_view purpose, std::uint64_t bytes) override {
    return make_arena(purpose, bytes);
  }
  void load_weights(std::span<const WeightLoad> weights, Mode mode, Arena& arena,
                    const LoadProgress& progress) override;
  std::unique_ptr<Executable> compile(const Program& program, const Bindings& bindings,
                                      const StepLimits& limits, Mode mode) override {
    return std::make_unique<CpuExecutable>(program, bindings, limits, mode, isa_, queue_);
  }

 private:
  using PieceDone = std::function<void(std::uint64_t begin, std::uint64_t end)>;
  static void place(const WeightLoad& load, Range groups, std::byte* dst);
  void place_matrix(const WeightLoad& load, std::byte* dst, const PieceDone& done);

  Isa isa_;
  std::shared_ptr<Account> account_;
  std::uint64_t limit_;
  DeviceInfo info_;
  Queue queue_;
};

// The limit of a type is what the processor can do with its kind of numbers in registers: bytes for quantised
// weights, floats for the others. A kernel that was measured to be faster still (BF16 has an instruction of
// its own) raises it.
DeviceRates CpuDevice::measure_rates() {
  const unsigned threads = queue_.threads();
  // The last is larger than any cache that a process gets; the others are a model's size, where one holds it.
  static constexpr std::uint64_t kUnit = 1 << 20;
  static constexpr std::uint64_t kSizes[] = {8 * kUnit,   16 * kUnit,  32 * kUnit, 64 * kUnit,
                                             128 * kUnit, 256 * kUnit, 512 * kUnit};
  const ReadRates reads = measure_read_bandwidth(isa_, threads, kSizes);
  DeviceRates rates{.read_bytes_per_second = reads.bytes_per_second.back(), .read_spread = reads.spread};
  for (std::size_t i = 0; i + 1 < std::size(kSizes); ++i)
    rates.cached_reads.emplace_back(kSizes[i], reads.bytes_per_second[i]);
  const double dots = measure_dot_rate(isa_, threads);
  const double fmas = measure_fma_rate(isa_, threads);
  const double bf16 = measure_multiply_rate(isa_, DType::BF16, threads);
  for (const DType type : dtypes()) {
    const double best = dtype_info(type).block > 1 ? dots : type == DType::BF16 ? bf16 : fmas;
    rates.multiply_per_second.emplace_back(type, std::max(best, fmas));
  }
  return rates;
}

void CpuDevice::place(const WeightLoad& load, Range groups, std::byte* dst) {
  const WeightSpec& w = *load.spec;
  const std::uint64_t begin = std::uint64_t{groups.begin} * kRowGroup;
  const std::uint64_t end = std::min<std::uint64_t>(std::uint64_t{groups.end} * kRowGroup, w.rows);
  if (begin >= end) return;
  const std::uint64_t row = load.row_bytes();
  if (w.role == WeightRole::embedding)
    std::memcpy(dst + begin * row, load.raw.data() + begin * row, (end - begin) * row);
  else
    pack(w.type, load.raw.data(), w.rows, w.cols, begin, end, dst, load.stride());
}

// A matrix in pieces, so that the file's pages can go before all of it has been read.
void CpuDevice::place_matrix(const WeightLoad& load, std::byte* dst, const PieceDone& done) {
  const std::uint64_t group_bytes = kRowGroup * load.stride();
  const auto groups = static_cast<std::uint32_t>((load.spec->rows + kRowGroup - 1) / kRowGroup);
  const auto piece =
      static_cast<std::uint32_t>(std::max<std::uint64_t>(kPieceBytes / group_bytes, queue_.threads()));
  for (std::uint32_t first = 0; first < groups; first += piece) {
    const std::uint32_t count = std::min(piece, groups - first);
    queue_.run([&](unsigned thread, unsigned n) {
      const Range mine = split_range(count, thread, n);
      place(load, {first + mine.begin, first + mine.end}, dst);
    });
    done(first * group_bytes, std::min<std::uint64_t>(load.raw.size(), (first + count) * group_bytes));
  }
}

void CpuDevice::load_weights(std::span<const WeightLoad> weights, Mode, Arena& arena,
                             const LoadProgress& progress) {
  std::uint64_t total = 0, before = 0;
  for (const auto& load : weights) total += load.spec->file_bytes();
  for (const auto& load : weights) {
    const auto done = [&](std::uint64_t begin, std::uint64_t end) {
      if (load.placed) load.placed(begin, end);
      const std::uint64_t bytes = load.spec->file_bytes();
      const std::uint64_t whole_rows = end / load.stride() * load.row_bytes();
      if (progress) progress(before + (end < load.raw.size() ? whole_rows : bytes), total);
    };
    std::byte* dst = arena.data() + load.offset;
    if (load.spec->is_vector()) {
      std::memcpy(dst, load.raw.data(), load.raw.size());
      done(0, load.raw.size());
    } else {
      place_matrix(load, dst, done);
    }
    before += load.spec->file_bytes();
  }
}

}  // namespace

std::unique_ptr<Device> make_cpu_device(const CpuOptions& options) {
  return std::make_unique<CpuDevice>(options);
}

}  // namespace steelyard
