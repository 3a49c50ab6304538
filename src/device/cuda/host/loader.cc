#include "device/cuda/host/loader.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"
#include "device/cuda/hopper/weights/layout.h"
#include "device/cuda/hopper/weights/repack.h"
#include "device/cuda/host/workspace.h"

namespace steelyard::cuda {
namespace {

constexpr std::uint32_t kSlots = 2;  // a thread

// One system call maps a whole piece of the file, where single page faults would cost more than the copy.
void populate(std::span<const std::byte> bytes) {
#ifdef MADV_POPULATE_READ
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data()) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(bytes.data()) + bytes.size() + page - 1) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin,
          MADV_POPULATE_READ);  // a hint: failing costs time only
#else
  (void)bytes;
#endif
}

class Loader {
 public:
  Loader(Gpu& gpu, std::span<const WeightLoad> loads, Mode mode, DevicePtr arena)
      : gpu_(gpu), loads_(loads), arena_(arena), pieces_(cut_pieces(loads, mode, kPieceBytes)) {
    for (const LoadPiece& p : pieces_) {
      total_ += p.bytes;
      slot_bytes_ = std::max(slot_bytes_, p.bytes);
      repack_ |= p.repack;
    }
    slot_bytes_ = (slot_bytes_ + 511) / 256 * 256;
  }

  void run(std::uint32_t threads, const LoadProgress& progress) {
    if (pieces_.empty()) return;
    threads = static_cast<std::uint32_t>(std::min<std::size_t>(threads, pieces_.size()));
    PinnedMemory ring(gpu_, slot_bytes_ * kSlots * threads);
    std::unique_ptr<VirtualArena> staging;
    if (repack_)
      staging = std::make_unique<VirtualArena>(gpu_, "load staging", slot_bytes_ * kSlots * threads);
    {
      Workers workers(stop_);
      for (std::uint32_t t = 0; t < threads; ++t) {
        const std::uint64_t at = slot_bytes_ * kSlots * t;
        workers.threads.emplace_back(
            [this, &ring, &staging, at] { work(ring.data() + at, staging ? staging->address() + at : 0); });
      }
      report(threads, progress);
    }
    if (error_) std::rethrow_exception(error_);
    if (progress) progress(total_, total_);
  }

 private:
  // Ends with its threads, also when `progress` throws because nobody wants the model any more.
  struct Workers {
    std::atomic<bool>& stop;
    std::vector<std::thread> threads;
    explicit Workers(std::atomic<bool>& flag) : stop(flag) {}
    Workers(const Workers&) = delete;
    ~Workers() {
      stop = true;
      for (std::thread& thread : threads) thread.join();
    }
  };

  void report(std::uint32_t threads, const LoadProgress& progress) {
    std::unique_lock lock(mutex_);
    while (finished_ < threads) {
      changed_.wait_for(lock, std::chrono::milliseconds(50));
      if (!progress || finished_ == threads) continue;
      lock.unlock();
      progress(std::min(done_.load(), total_ - 1), total_);
      lock.lock();
    }
  }

  void work(std::byte* host, DevicePtr device) {
    try {
      Stream stream(gpu_);
      Event free[kSlots] = {Event(gpu_, false), Event(gpu_, false)};
      // The stream must be idle before its slots go, whatever happens.
      struct Idle {
        Gpu& gpu;
        CuStream stream;
        ~Idle() { gpu.driver().stream_synchronize(stream); }
      } idle{gpu_, stream.get()};
      for (std::uint32_t turn = 0; !stop_.load(std::memory_order_relaxed); ++turn) {
        const std::size_t index = next_.fetch_add(1);
        if (index >= pieces_.size()) break;
        const std::uint32_t slot = turn % kSlots;
        if (turn >= kSlots) free[slot].synchronize();
        move(pieces_[index], host + slot * slot_bytes_, device + slot * slot_bytes_, stream.get());
        free[slot].record(stream.get());
        done_ += pieces_[index].bytes;
      }
      stream.synchronize();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_ = true;
    }
    const std::lock_guard lock(mutex_);
    ++finished_;
    changed_.notify_one();
  }

  static void read(const WeightLoad& load, const LoadPiece& piece, std::byte* host) {
    const std::uint64_t rows = piece.row_end - piece.row_begin, row = load.row_bytes();
    const auto bytes = load.raw.subspan(piece.row_begin * load.stride(), (rows - 1) * load.stride() + row);
    populate(bytes);
    if (!load.has_gaps()) return void(std::memcpy(host, bytes.data(), bytes.size()));
    for (std::uint64_t i = 0; i < rows; ++i)
      std::memcpy(host + i * row, bytes.data() + i * load.stride(), row);
  }

  void move(const LoadPiece& piece, std::byte* host, DevicePtr device, CuStream stream) {
    const WeightLoad& load = loads_[piece.weight];
    read(load, piece, host);
    const DevicePtr weight = arena_ + load.offset;
    const DevicePtr to = piece.repack ? device : weight + piece.offset;
    gpu_.check(gpu_.driver().copy_to_device(to, host, piece.bytes, stream), "copying weights");
    if (!piece.repack) return;
    StreamLauncher launcher(gpu_, stream);
    enqueue_repack(launcher, load.spec->type, load.spec->rows, load.spec->cols, piece.row_begin,
                   piece.row_end, device, weight);
  }

  Gpu& gpu_;
  std::span<const WeightLoad> loads_;
  DevicePtr arena_;
  std::vector<LoadPiece> pieces_;
  std::uint64_t total_ = 0, slot_bytes_ = 0;
  bool repack_ = false;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint32_t finished_ = 0;
  std::exception_ptr error_;
};

}  // namespace

std::vector<LoadPiece> cut_pieces(std::span<const WeightLoad> loads, Mode mode, std::uint64_t limit) {
  std::vector<LoadPiece> pieces;
  for (std::uint32_t i = 0; i < loads.size(); ++i) {
    const WeightSpec& w = *loads[i].spec;
    const std::uint64_t stride = loads[i].stride();
    if (loads[i].raw.size() != stride * (w.rows - 1) + loads[i].row_bytes())
      throw_error(ErrorKind::internal, "the weight {} has {} bytes of {}", w.name, loads[i].raw.size(),
                  w.file_bytes());
    const std::uint64_t row = row_bytes(w.type, w.cols);
    const std::uint64_t groups = std::max<std::uint64_t>(limit / (row * kRepackRows), 1);
    const auto step = static_cast<std::uint32_t>(std::min<std::uint64_t>(groups * kRepackRows, w.rows));
    for (std::uint32_t begin = 0; begin < w.rows; begin += step) {
      const std::uint32_t end = std::min(w.rows, begin + step);
      pieces.push_back({i, begin, end, begin * row, (end - begin) * row, is_repacked(w, mode)});
    }
  }
  return pieces;
}

void load_weights(Gpu& gpu, std::span<const WeightLoad> loads, Mode mode, DevicePtr arena,
                  const LoadProgress& progress, const LoadOptions& options) {
  gpu.bind();
  const std::uint32_t threads =
      options.threads ? options.threads : std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
  Loader(gpu, loads, mode, arena).run(threads, progress);
}

}  // namespace steelyard::cuda
