// The host side of the CUDA back end against a fake driver: no GPU, no toolkit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>

#include "base/dtype.h"
#include "base/error.h"
#include "device/cuda/hopper/weights/layout.h"
#include "device/cuda/host/arena.h"
#include "device/cuda/host/loader.h"
#include "device/cuda/host/workspace.h"
#include "device/cuda/probe/probe.h"
#include "device/cuda/testing/small_model.h"
#include "program/program.h"

#ifdef STEELYARD_CUDA_HEADER
#include STEELYARD_CUDA_HEADER
#endif

namespace steelyard::cuda {
namespace {

using ::testing::HasSubstr;

#ifdef STEELYARD_CUDA_HEADER
TEST(DriverTypes, MatchTheToolkitsHeader) {
  static_assert(sizeof(CuLaunchConfig) == sizeof(CUlaunchConfig));
  static_assert(offsetof(CuLaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
  static_assert(offsetof(CuLaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
  static_assert(sizeof(CuLaunchAttribute) == sizeof(CUlaunchAttribute));
  static_assert(offsetof(CuLaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
  static_assert(sizeof(CuMemAllocationProp) == sizeof(CUmemAllocationProp));
  static_assert(offsetof(CuMemAllocationProp, location) == offsetof(CUmemAllocationProp, location));
  static_assert(sizeof(CuMemAccess) == sizeof(CUmemAccessDesc));
  EXPECT_EQ(kLaunchCooperative, CU_LAUNCH_ATTRIBUTE_COOPERATIVE);
  EXPECT_EQ(kLaunchCluster, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
  EXPECT_EQ(kLaunchDependent, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
  EXPECT_EQ(kAttrClock, CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
  EXPECT_EQ(kAttrMemoryClock, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
  EXPECT_EQ(kAttrBusWidth, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  EXPECT_EQ(kAttrSharedOptin, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  EXPECT_EQ(kFuncMaxDynamicShared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
  EXPECT_EQ(kCaptureThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  EXPECT_EQ(kCuOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
  EXPECT_EQ(kCuNoDevice, CUDA_ERROR_NO_DEVICE);
  EXPECT_EQ(kCuNoBinary, CUDA_ERROR_NO_BINARY_FOR_GPU);
  EXPECT_EQ(kCuNotFound, CUDA_ERROR_NOT_FOUND);
  EXPECT_EQ(kCuNotReady, CUDA_ERROR_NOT_READY);
}

TEST(DriverErrors, HaveTheToolkitsNumbers) {
  EXPECT_EQ(kCuDeviceUnavailable, CUDA_ERROR_DEVICE_UNAVAILABLE);
  EXPECT_EQ(kCuInvalidDevice, CUDA_ERROR_INVALID_DEVICE);
  EXPECT_EQ(kCuEccUncorrectable, CUDA_ERROR_ECC_UNCORRECTABLE);
  EXPECT_EQ(kCuNvlinkUncorrectable, CUDA_ERROR_NVLINK_UNCORRECTABLE);
  EXPECT_EQ(kCuContained, CUDA_ERROR_CONTAINED);
  EXPECT_EQ(kCuIllegalAddress, CUDA_ERROR_ILLEGAL_ADDRESS);
  EXPECT_EQ(kCuLaunchTimeout, CUDA_ERROR_LAUNCH_TIMEOUT);
  EXPECT_EQ(kCuContextDestroyed, CUDA_ERROR_CONTEXT_IS_DESTROYED);
  EXPECT_EQ(kCuAssert, CUDA_ERROR_ASSERT);
  EXPECT_EQ(kCuHardwareStack, CUDA_ERROR_HARDWARE_STACK_ERROR);
  EXPECT_EQ(kCuIllegalInstruction, CUDA_ERROR_ILLEGAL_INSTRUCTION);
  EXPECT_EQ(kCuMisalignedAddress, CUDA_ERROR_MISALIGNED_ADDRESS);
  EXPECT_EQ(kCuInvalidAddressSpace, CUDA_ERROR_INVALID_ADDRESS_SPACE);
  EXPECT_EQ(kCuInvalidPc, CUDA_ERROR_INVALID_PC);
  EXPECT_EQ(kCuLaunchFailed, CUDA_ERROR_LAUNCH_FAILED);
  EXPECT_EQ(kCuTensorMemoryLeak, CUDA_ERROR_TENSOR_MEMORY_LEAK);
  EXPECT_EQ(kCuUnknown, CUDA_ERROR_UNKNOWN);
}
#endif

TEST(VirtualArenaTest, MapsWholeGranulesAndCountsThem) {
  Rig rig;
  {
    VirtualArena arena(rig.gpu, "weights", kGranule * 3 + 1, kGranule * 16);
    EXPECT_EQ(arena.stats().mapped, kGranule * 4);
    EXPECT_EQ(arena.stats().used, kGranule * 3 + 1);
    EXPECT_EQ(arena.stats().reserved, kGranule * 16);
    EXPECT_EQ(rig.fake.used(), kGranule * 4);
    EXPECT_EQ(arena.address() % kGranule, 0u);
  }
  EXPECT_EQ(rig.fake.used(), 0u);
  EXPECT_EQ(rig.fake.reserved, 0u);
}

TEST(VirtualArenaTest, GrowsInPlaceAndShrinksByPieces) {
  Rig rig;
  VirtualArena arena(rig.gpu, "state", 10, kGranule * 8);
  const DevicePtr address = arena.address();
  auto* bytes = reinterpret_cast<char*>(address);
  bytes[0] = 42;
  arena.resize(kGranule * 5);
  EXPECT_EQ(arena.address(), address);
  EXPECT_EQ(bytes[0], 42);
  EXPECT_EQ(bytes[kGranule * 5 - 1], 0);
  arena.resize(kGranule);
  EXPECT_EQ(rig.fake.used(), kGranule);
  EXPECT_EQ(bytes[0], 42);
  EXPECT_EQ(error_of([&] { arena.resize(kGranule * 9); }).kind(), ErrorKind::internal);
}

TEST(VirtualArenaTest, SaysHowMuchIsMissingAndKeepsNothing) {
  Rig rig(kGranule * 4);
  const Error e = error_of([&] { VirtualArena(rig.gpu, "the KV state", kGranule * 6); });
  EXPECT_EQ(e.kind(), ErrorKind::no_memory);
  EXPECT_THAT(e.what(), HasSubstr("the KV state: it needs 12.0 MiB more, 8.0 MiB of 8.0 MiB are free"));
  EXPECT_EQ(rig.fake.used(), 0u);
  EXPECT_EQ(rig.fake.reserved, 0u);
}

TEST(VirtualArenaTest, AFailedGrowthLeavesTheArenaAsItWas) {
  Rig rig(VirtualArena::kPiece + kGranule * 2);
  VirtualArena arena(rig.gpu, "state", kGranule, 2 * VirtualArena::kPiece);
  EXPECT_THROW(arena.resize(VirtualArena::kPiece + 4 * kGranule), Error);
  EXPECT_EQ(arena.stats().mapped, kGranule);
  EXPECT_EQ(rig.fake.used(), kGranule);
  for (const char* call : {"memory_map", "memory_access", "set8"}) {
    rig.fake.fail = [&](const std::string& name) { return name == call ? 1 : 0; };
    EXPECT_THROW(arena.resize(4 * kGranule), Error) << call;
    rig.fake.fail = {};
    EXPECT_EQ(rig.fake.used(), kGranule) << call;
  }
}

TEST(GpuTest, IsLostAfterAStickyErrorAndSaysSo) {
  Rig rig;
  EXPECT_THROW(rig.gpu.check(1, "a call"), Error);
  EXPECT_FALSE(rig.gpu.lost());
  const Error e = error_of([&] { rig.gpu.check(kCuIllegalAddress, "a step"); });
  EXPECT_THAT(e.what(), HasSubstr("CUDA0 is lost: a step failed with FAKE_ERROR (700)"));
  EXPECT_TRUE(rig.gpu.lost());
  EXPECT_THAT(error_of([&] { rig.gpu.bind(); }).what(), HasSubstr("CUDA0 is lost"));
}

TEST(GpuTest, MeasuresWhatOpeningTakes) {
  FakeDriver fake;
  const auto context_of = [&](std::vector<std::optional<DriverMemory>> readings) {
    std::size_t next = 0;
    const Gpu gpu(fake.table(), 0, fake_kernels(), [&](const std::string& pci) {
      EXPECT_EQ(pci, "0000:17:00.0");
      return readings.at(next++);
    });
    return gpu.context_bytes();
  };
  EXPECT_EQ(context_of({DriverMemory{.all = 7000}, DriverMemory{.all = 7500}}), 500u);
  EXPECT_EQ(context_of({std::nullopt, std::nullopt}), 0u);
  // Another process took 600 meanwhile: seen only where the driver doesn't tell processes apart.
  EXPECT_EQ(context_of({DriverMemory{.all = 7000}, DriverMemory{.all = 8100}}), 1100u);
  EXPECT_EQ(context_of({DriverMemory{.all = 7000}, DriverMemory{8100, 500, true}}), 500u);
  // Another process went.
  EXPECT_EQ(context_of({DriverMemory{.all = 7000}, DriverMemory{6500, 500, true}}), 500u);
  EXPECT_EQ(context_of({DriverMemory{.all = 7000}, DriverMemory{.all = 6500}}), 0u);
}

// What a driver would say of a device with `others` in use by other processes and `kernels` by this one.
struct Use {
  FakeDriver fake;
  std::uint64_t others = 7000, kernels = 0;
  bool told = true;
  Gpu gpu{fake.table(), 0, fake_kernels(), [this](const auto&) {
            const std::uint64_t own = fake.used() + kernels;
            return std::optional(DriverMemory{others + own, told ? own : 0, told});
          }};
};

TEST(GpuTest, MeasuresWhatIsTakenBesideArenas) {
  for (const bool told : {true, false}) {
    Use use;
    use.told = told;
    VirtualArena weights(use.gpu, "weights", 3 * kGranule);
    const DriverMemory before = use.gpu.driver_memory();
    EXPECT_EQ(before.own, 0u);
    EXPECT_EQ(before.all, 7000u);
    use.kernels += 40;
    VirtualArena of_another_load(use.gpu, "weights", 5 * kGranule);
    weights.resize(0);
    use.fake.fail = [](const std::string& call) { return call == "memory_map" ? 1 : 0; };
    EXPECT_THROW(weights.resize(3 * kGranule), Error);
    use.fake.fail = {};
    EXPECT_EQ(taken_between(before, use.gpu.driver_memory()), 40u);
    use.others += 1000;
    EXPECT_EQ(taken_between(before, use.gpu.driver_memory()), told ? 40u : 1040u);
  }
}

TEST(GpuTest, WithoutTheManagementLibraryTheFreeMemoryTells) {
  Rig rig;
  const VirtualArena arena(rig.gpu, "weights", kGranule);
  const DriverMemory before = rig.gpu.driver_memory();
  EXPECT_EQ(before.all, 0u);
  EXPECT_FALSE(before.told);
  rig.fake.used() += 50;
  EXPECT_EQ(taken_between(before, rig.gpu.driver_memory()), 50u);
}

TEST(GpuTest, ArenasThatComeMeanwhileDontShow) {
  Use use;
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) VirtualArena(use.gpu, "weights", kGranule);
  });
  for (int i = 0; i < 200; ++i) EXPECT_EQ(use.gpu.driver_memory().own, 0u);
  other.join();
}

TEST(GpuTest, AStepThatNeverEndsLosesTheDeviceAfterTheAbortFlag) {
  Rig rig;
  rig.fake.fail = [](const std::string& call) { return call == "event_query" ? kCuNotReady : 0; };
  std::uint32_t abort = 0;
  const Error e = error_of([&] { rig.gpu.wait_for(nullptr, &abort, std::chrono::milliseconds(40)); });
  EXPECT_EQ(abort, 1u);
  EXPECT_THAT(e.what(), HasSubstr("CUDA0 is lost: a step didn't end"));
  EXPECT_TRUE(rig.gpu.lost());
  rig.gpu.drain(nullptr);  // returns
}

TEST(GpuTest, AKernelThatHeedsTheAbortFlagEndsTheWaitWithoutALoss) {
  Rig rig;
  std::uint32_t abort = 0;
  rig.fake.fail = [&](const std::string& call) { return call == "event_query" && !abort ? kCuNotReady : 0; };
  EXPECT_NO_THROW(rig.gpu.wait_for(nullptr, &abort, std::chrono::milliseconds(40)));
  EXPECT_FALSE(rig.gpu.lost());
}

TEST(GpuTest, MeasuresRatesAndLeavesNothingBehind) {
  Rig rig;
  const DeviceRates rates = measure_rates(rig.gpu);
  // The fake says that everything takes a millisecond.
  EXPECT_DOUBLE_EQ(rates.read_bytes_per_second, (256ull << 20) * 1e3);
  EXPECT_DOUBLE_EQ(rates.to_device_bytes_per_second, (64ull << 20) * 1e3);
  EXPECT_DOUBLE_EQ(rates.launch_seconds, 1e-3 / 500);
  ASSERT_FALSE(rates.multiply_per_second.empty());
  for (const auto& [type, rate] : rates.multiply_per_second) EXPECT_GT(rate, 1e12);
  for (const char* call : {"launch", "capture_begin", "graph_instantiate", "event_query", "host_alloc"}) {
    rig.fake.fail = [&](const std::string& name) { return name == call ? 1 : 0; };
    EXPECT_THROW(measure_rates(rig.gpu), Error) << call;
    rig.fake.fail = {};
  }
  EXPECT_EQ(rig.fake.used(), 0u);
  EXPECT_EQ(rig.fake.pinned, 0u);
  EXPECT_EQ(rig.fake.streams, 1);  // the device's queue
  EXPECT_EQ(rig.fake.events, 0);
  EXPECT_EQ(rig.fake.graphs, 0);
}

TEST(GpuTest, ListsKernelsOnceAndLoadsThemAsTheyAreAskedFor) {
  FakeDriver fake;
  const std::string first = "fake kernels\na\nb\nend\n", second = "fake kernels\nb\nc\nend\n";
  const KernelImage images[] = {{"first", std::as_bytes(std::span(first))},
                                {"second", std::as_bytes(std::span(second))}};
  Gpu gpu(fake.table(), 0, images);
  std::vector<std::string> calls;
  fake.fail = [&](const std::string& call) { return calls.push_back(call), 0; };
  EXPECT_EQ(gpu.find_kernel("d"), nullptr);
  EXPECT_THAT(calls, ::testing::IsEmpty());
  ASSERT_NE(gpu.find_kernel("c"), nullptr);
  EXPECT_NE(gpu.find_kernel("c")->function, nullptr);
  EXPECT_EQ(gpu.find_kernel("b")->kernel,
            reinterpret_cast<CuKernel>(const_cast<char*>(fake.libraries.at(first.data())[1].c_str())));
  EXPECT_THAT(calls, ::testing::ElementsAre("kernel_function", "kernel_function"));
  fake.fail = {};
  EXPECT_THAT(error_of([&] { gpu.kernel("d"); }).what(), HasSubstr("CUDA0: no kernel is named d"));
}

TEST(GpuTest, EachHasItsOwnMemory) {
  FakeDriver fake(8 * kGranule, 2);
  Gpu first(fake.table(), 0, fake_kernels()), second(fake.table(), 1, fake_kernels());
  EXPECT_EQ(first.id(), "CUDA0");
  EXPECT_EQ(second.id(), "CUDA1");
  const VirtualArena arena(second, "weights", 3 * kGranule);
  EXPECT_EQ(first.free_memory(), 8 * kGranule);
  EXPECT_EQ(second.free_memory(), 5 * kGranule);
  EXPECT_EQ(fake.used(1), 3 * kGranule);
}

TEST(GpuTest, KernelsThatCantBeListedAreAClearError) {
  FakeDriver fake;
  for (const std::string call : {"library_kernel_count", "library_kernels", "kernel_name"}) {
    fake.fail = [&](const std::string& name) { return name == call ? 1 : 0; };
    EXPECT_THAT(error_of([&] { Gpu(fake.table(), 0, fake_kernels()); }).what(),
                HasSubstr("failed with FAKE_ERROR (1)"))
        << call;
    EXPECT_EQ(fake.contexts, 0);
  }
}

TEST(GpuTest, RefusesAGpuThatNoImageFits) {
  FakeDriver fake;
  fake.fail = [](const std::string& call) { return call == "library_load" ? kCuNoBinary : 0; };
  const Error e = error_of([&] { Gpu(fake.table(), 0, fake_kernels()); });
  EXPECT_EQ(e.kind(), ErrorKind::unsupported);
  EXPECT_THAT(e.what(), HasSubstr("no kernels for CUDA0"));
  EXPECT_EQ(fake.contexts, 0);
}

// Weights with known bytes, as they would lie in a file.
struct FileWeights {
  std::vector<WeightSpec> specs;
  std::vector<std::vector<std::byte>> raw;
  std::vector<WeightLoad> loads;
  std::uint64_t bytes = 0;

  void add(const char* name, WeightRole role, DType type, std::uint32_t rows, std::uint32_t cols) {
    specs.push_back({name, role, 0, type, rows, cols});
  }
  void fill(Mode mode) {
    std::mt19937 random(7);
    for (const auto& w : specs) {
      raw.emplace_back(w.file_bytes());
      for (auto& b : raw.back()) b = static_cast<std::byte>(random());
    }
    for (std::size_t i = 0; i < specs.size(); ++i) {
      loads.push_back({&specs[i], raw[i], bytes});
      bytes += cuda_target().weight_layout(specs[i], mode).bytes;
    }
  }
};

FileWeights some_weights() {
  FileWeights w;
  w.add("norm", WeightRole::norm, DType::F32, 1, 300);
  w.add("big", WeightRole::qkv, DType::F32, 4000, 2048);  // 31 MiB: several pieces
  w.add("odd", WeightRole::down, DType::Q2_K, 77, 256);
  w.fill(Mode::exact);
  return w;
}

TEST(Loading, PiecesCoverEveryRowOnceInWholeGroups) {
  const FileWeights w = some_weights();
  std::vector<std::uint64_t> covered(w.specs.size(), 0);
  for (const LoadPiece& p : cut_pieces(w.loads, Mode::exact, kPieceBytes)) {
    EXPECT_EQ(p.row_begin % kRepackRows, 0u);
    EXPECT_EQ(p.offset, covered[p.weight]);
    EXPECT_LE(p.bytes, kPieceBytes);
    covered[p.weight] += p.bytes;
  }
  for (std::size_t i = 0; i < covered.size(); ++i) EXPECT_EQ(covered[i], w.specs[i].file_bytes());
}

TEST(Loading, PutsEveryByteInPlaceAndReportsProgress) {
  Rig rig;
  const FileWeights w = some_weights();
  VirtualArena arena(rig.gpu, "weights", w.bytes);
  std::uint64_t last = 0, total = 0;
  load_weights(rig.gpu, w.loads, Mode::exact, arena.address(),
               [&](std::uint64_t done, std::uint64_t all) {
                 EXPECT_GE(done, last);
                 last = done, total = all;
               },
               {.threads = 3});
  EXPECT_EQ(last, total);
  for (const auto& load : w.loads)
    EXPECT_EQ(
        std::memcmp(reinterpret_cast<void*>(arena.address() + load.offset), load.raw.data(), load.raw.size()),
        0)
        << load.spec->name;
  EXPECT_EQ(rig.fake.pinned, 0u);
  EXPECT_EQ(rig.fake.streams, 1);  // the device's queue
  EXPECT_EQ(rig.fake.events, 0);
}

TEST(Loading, AFailureInAReaderEndsTheLoadWithItsError) {
  Rig rig;
  const FileWeights w = some_weights();
  VirtualArena arena(rig.gpu, "weights", w.bytes);
  std::atomic<int> copies = 0;
  rig.fake.fail = [&](const std::string& call) {
    return call == "copy_to_device" && ++copies == 3 ? 719 : 0;
  };
  const Error e =
      error_of([&] { load_weights(rig.gpu, w.loads, Mode::exact, arena.address(), {}, {.threads = 2}); });
  EXPECT_THAT(e.what(), HasSubstr("CUDA0 is lost: copying weights"));
  EXPECT_TRUE(rig.gpu.lost());
  EXPECT_EQ(rig.fake.pinned, 0u);
}

TEST(Loading, StagingThatDoesNotFitIsSaidAndGivenBack) {
  FileWeights w;
  w.add("fast", WeightRole::qkv, DType::Q8_0, 4096, 2048);
  w.fill(Mode::fast);
  ASSERT_TRUE(is_repacked(w.specs[0], Mode::fast));
  Rig rig(round_to_granules(w.bytes) + kGranule);
  VirtualArena arena(rig.gpu, "weights", w.bytes);
  const Error e = error_of([&] { load_weights(rig.gpu, w.loads, Mode::fast, arena.address(), {}); });
  EXPECT_EQ(e.kind(), ErrorKind::no_memory);
  EXPECT_THAT(e.what(), HasSubstr("load staging"));
  EXPECT_EQ(rig.fake.used(), round_to_granules(w.bytes));
  EXPECT_EQ(rig.fake.pinned, 0u);
}

TEST(Loading, PinnedMemoryThatCantBeHadIsAClearError) {
  Rig rig;
  const FileWeights w = some_weights();
  VirtualArena arena(rig.gpu, "weights", w.bytes);
  rig.fake.fail = [&](const std::string& call) { return call == "host_alloc" ? kCuOutOfMemory : 0; };
  EXPECT_EQ(error_of([&] { load_weights(rig.gpu, w.loads, Mode::exact, arena.address(), {}); }).kind(),
            ErrorKind::no_memory);
}

TEST(Sizes, WorkspacePartsDontOverlapAndAreAligned) {
  const SmallModel model;
  for (const Mode mode : {Mode::fast, Mode::invariant, Mode::exact}) {
    const Workspace w = lay_out(model.p, {.rows = 33, .outputs = 5, .slots = 3, .context = 1000}, mode);
    std::vector<std::uint64_t> starts = w.buffers;
    for (const auto at : {w.step, w.normed, w.branch, w.head_input, w.partials, w.masks, w.history,
                          w.last_sample, w.sampled, w.counts})
      starts.push_back(at);
    for (const auto at : w.ropes) starts.push_back(at);
    std::sort(starts.begin(), starts.end());
    EXPECT_EQ(std::unique(starts.begin(), starts.end()), starts.end());
    for (const auto at : starts) EXPECT_EQ(at % 256, 0u);
    EXPECT_GT(w.bytes, starts.back());
  }
}

TEST(Sizes, PagesHoldTheirPartsApart) {
  const KvView f16 = kv_layout({0, 0, DType::F16, 3, 64, 128});
  EXPECT_EQ(f16.v_offset, 3u * 64 * 64 * 2);
  EXPECT_EQ(f16.page_bytes, 3u * 64 * (64 + 128) * 2);
  const KvView q8 = kv_layout({0, 0, DType::Q8_0, 2, 64, 64});
  EXPECT_EQ(q8.k_scale_offset, 2u * 2 * 64 * 64);
  EXPECT_EQ(q8.v_scale_offset, q8.k_scale_offset + 2u * 64 * 2 * 2);
  EXPECT_EQ(q8.page_bytes, q8.v_scale_offset + 2u * 64 * 2 * 2);
}

}  // namespace
}  // namespace steelyard::cuda
