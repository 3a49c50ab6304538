#include "device/cuda/probe/probe.h"

#include <algorithm>
#include <functional>

#include "base/dtype.h"
#include "base/error.h"
#include "device/cuda/host/arena.h"
#include "device/cuda/probe/args.h"

namespace steelyard::cuda {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr int kRepeats = 6;

class Prober {
 public:
  explicit Prober(Gpu& gpu)
      : gpu_(gpu),
        stream_(gpu),
        begin_(gpu, true),
        end_(gpu, true),
        bytes_(std::clamp(gpu.free_memory() / 4, 64 * kMiB, 1024 * kMiB) / kGranule * kGranule),
        memory_(gpu, "measuring", bytes_ + kGranule) {}

  DeviceRates run() {
    DeviceRates rates{};
    rates.read_bytes_per_second = static_cast<double>(bytes_) / read_seconds();
    // Whatever a weight's type is, its products run on the tensor cores in f16 or bf16, at one rate.
    const double multiply = std::max(mma_rate(), wgmma_rate());
    for (const DType type : dtypes()) rates.multiply_per_second.emplace_back(type, multiply);
    PinnedMemory host(gpu_, 64 * kMiB);
    const Driver& d = gpu_.driver();
    const auto n = static_cast<double>(host.bytes());
    rates.to_device_bytes_per_second =
        n / best([&] {
          gpu_.check(d.copy_to_device(memory_.address(), host.data(), host.bytes(), stream_.get()),
                     "copying");
        });
    rates.from_device_bytes_per_second =
        n / best([&] {
          gpu_.check(d.copy_to_host(host.data(), memory_.address(), host.bytes(), stream_.get()), "copying");
        });
    rates.launch_seconds = launch_seconds();
    return rates;
  }

 private:
  // Seconds of the fastest of a few runs, after one to warm up.
  double best(const std::function<void()>& enqueue) {
    float least = 0;
    for (int i = 0; i <= kRepeats; ++i) {
      begin_.record(stream_.get());
      enqueue();
      end_.record(stream_.get());
      gpu_.wait_for(end_.get(), nullptr, std::chrono::seconds(20));
      float ms = 0;
      gpu_.check(gpu_.driver().event_elapsed(&ms, begin_.get(), end_.get()), "timing");
      if (i > 0 && (least == 0 || ms < least)) least = ms;
    }
    return std::max(static_cast<double>(least), 1e-6) * 1e-3;
  }

  DevicePtr sink() const { return memory_.address() + bytes_; }

  double read_seconds() {
    StreamLauncher launcher(gpu_, stream_.get());
    KernelLaunch l{"probe_read"};
    l.grid[0] = gpu_.info().sms * 8;
    l.block[0] = kProbeThreads;
    return best([&] { launcher(l, memory_.address(), std::uint64_t{bytes_ / 16}, sink()); });
  }

  double rate_of(const KernelLaunch& l, double ops_a_round) {
    constexpr std::uint32_t kRounds = 4096;
    StreamLauncher launcher(gpu_, stream_.get());
    return l.grid[0] * ops_a_round * kRounds / best([&] { launcher(l, std::uint32_t{kRounds}, sink()); });
  }
  double mma_rate() {
    KernelLaunch l{"probe_mma"};
    l.grid[0] = gpu_.info().sms * 2;
    l.block[0] = kProbeThreads;
    return rate_of(l, kProbeThreads / 32 * kProbeMmaOps);
  }
  double wgmma_rate() {
    if (!gpu_.find_kernel("probe_wgmma")) return 0;
    KernelLaunch l{"probe_wgmma"};
    l.grid[0] = gpu_.info().sms * 2;
    l.block[0] = 128;
    l.shared_bytes = kProbeWgmmaShared;
    return rate_of(l, kProbeWgmmaOps);
  }

  double launch_seconds() {
    constexpr int kNodes = 500;
    const Driver& d = gpu_.driver();
    StreamLauncher launcher(gpu_, stream_.get());
    const KernelLaunch l{"probe_nothing"};
    gpu_.kernel(l.kernel);  // loads it: a capture doesn't allow that
    gpu_.check(d.capture_begin(stream_.get(), kCaptureThreadLocal), "capturing a graph");
    CuGraph graph = nullptr;
    try {
      for (int i = 0; i < kNodes; ++i) launcher(l);
    } catch (...) {
      if (d.capture_end(stream_.get(), &graph) == 0 && graph) d.graph_destroy(graph);
      throw;
    }
    gpu_.check(d.capture_end(stream_.get(), &graph), "capturing a graph");
    CuGraphExec executable = nullptr;
    const CuResult made = d.graph_instantiate(&executable, graph, 0);
    d.graph_destroy(graph);
    gpu_.check(made, "instantiating a graph");
    double seconds = 0;
    try {
      seconds = best([&] { gpu_.check(d.graph_launch(executable, stream_.get()), "starting a graph"); });
    } catch (...) {
      d.graph_exec_destroy(executable);
      throw;
    }
    d.graph_exec_destroy(executable);
    return seconds / kNodes;
  }

  Gpu& gpu_;
  Stream stream_;
  Event begin_, end_;
  const std::uint64_t bytes_;
  VirtualArena memory_;
};

}  // namespace

DeviceRates measure_rates(Gpu& gpu) { return Prober(gpu).run(); }

}  // namespace steelyard::cuda
