// The host side of the CUDA back end against a fake driver: no GPU, no toolkit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "base/error.h"
#include "device/cuda/arena.h"
#include "device/cuda/executable.h"
#include "device/cuda/fake_driver.h"
#include "device/cuda/loader.h"
#include "device/cuda/wire.h"
#include "device/cuda_target.h"

#ifdef STRATA_CUDA_HEADER
#include STRATA_CUDA_HEADER
#endif

namespace strata::cuda {
namespace {

using ::testing::HasSubstr;

template <typename Fn>
Error error_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::internal, "none");
}

struct Rig {
  FakeDriver fake;
  Gpu gpu;
  explicit Rig(std::uint64_t memory = 1ull << 30)
      : fake(memory), gpu(fake.table(), 0, FakeDriver::images()) {}
};

#ifdef STRATA_CUDA_HEADER
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
  EXPECT_EQ(kAttrSharedOptin, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  EXPECT_EQ(kFuncMaxDynamicShared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
  EXPECT_EQ(kCaptureThreadLocal, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
  EXPECT_EQ(kCuIllegalAddress, CUDA_ERROR_ILLEGAL_ADDRESS);
}
#endif

TEST(VirtualArenaTest, MapsWholeGranulesAndCountsThem) {
  Rig rig;
  {
    VirtualArena arena(rig.gpu, "weights", kGranule * 3 + 1, kGranule * 16);
    EXPECT_EQ(arena.stats().mapped, kGranule * 4);
    EXPECT_EQ(arena.stats().used, kGranule * 3 + 1);
    EXPECT_EQ(arena.stats().reserved, kGranule * 16);
    EXPECT_EQ(rig.fake.used, kGranule * 4);
    EXPECT_EQ(arena.address() % kGranule, 0u);
  }
  EXPECT_EQ(rig.fake.used, 0u);
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
  EXPECT_EQ(rig.fake.used, kGranule);
  EXPECT_EQ(bytes[0], 42);
  EXPECT_EQ(error_of([&] { arena.resize(kGranule * 9); }).kind(), ErrorKind::internal);
}

TEST(VirtualArenaTest, SaysHowMuchIsMissingAndKeepsNothing) {
  Rig rig(kGranule * 4);
  const Error e = error_of([&] { VirtualArena(rig.gpu, "the KV state", kGranule * 6); });
  EXPECT_EQ(e.kind(), ErrorKind::no_memory);
  EXPECT_THAT(e.what(), HasSubstr("the KV state: it needs 12 MiB more, 8 MiB of 8 MiB are free"));
  EXPECT_EQ(rig.fake.used, 0u);
  EXPECT_EQ(rig.fake.reserved, 0u);
}

TEST(VirtualArenaTest, AFailedGrowthLeavesTheArenaAsItWas) {
  Rig rig(VirtualArena::kPiece + kGranule * 2);
  VirtualArena arena(rig.gpu, "state", kGranule, 2 * VirtualArena::kPiece);
  EXPECT_THROW(arena.resize(VirtualArena::kPiece + 4 * kGranule), Error);
  EXPECT_EQ(arena.stats().mapped, kGranule);
  EXPECT_EQ(rig.fake.used, kGranule);
  for (const char* call : {"memory_map", "memory_access", "set8"}) {
    rig.fake.fail = [&](const std::string& name) { return name == call ? 1 : 0; };
    EXPECT_THROW(arena.resize(4 * kGranule), Error) << call;
    rig.fake.fail = {};
    EXPECT_EQ(rig.fake.used, kGranule) << call;
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

TEST(GpuTest, RefusesAGpuThatNoImageFits) {
  FakeDriver fake;
  fake.fail = [](const std::string& call) { return call == "library_load" ? kCuNoBinary : 0; };
  const Error e = error_of([&] { Gpu(fake.table(), 0, FakeDriver::images()); });
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
  EXPECT_EQ(rig.fake.streams, 0);
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

TEST(Loading, PinnedMemoryThatCantBeHadIsAClearError) {
  Rig rig;
  const FileWeights w = some_weights();
  VirtualArena arena(rig.gpu, "weights", w.bytes);
  rig.fake.fail = [&](const std::string& call) { return call == "host_alloc" ? kCuOutOfMemory : 0; };
  EXPECT_EQ(error_of([&] { load_weights(rig.gpu, w.loads, Mode::exact, arena.address(), {}); }).kind(),
            ErrorKind::no_memory);
}

// One layer of everything, on memory of the fake device.
struct SmallModel {
  Program p;
  SmallModel() {
    p.n_embd = 64;
    p.vocab_size = 40;
    for (const char* name : {"hidden", "q", "k", "v", "attended", "inner"}) p.buffers.push_back({name, 64});
    p.buffers.push_back({"logits", 40, RowSet::outputs});
    p.groups.push_back({"full", 0});
    p.states.push_back({0, 0, DType::F16, 2, 32, 32});
    p.ropes.push_back({RopeSpec::Pairs::halves, 32, 10000.0f});
    const auto matrix = [&](const char* name, WeightRole role, std::uint32_t rows) {
      p.weights.push_back({name, role, 0, DType::Q8_0, rows, 64});
      return static_cast<WeightId>(p.weights.size() - 1);
    };
    p.weights.push_back({"norm", WeightRole::norm, 0, DType::F32, 1, 64});
    const NormRef norm{0, 1e-5f};
    const WeightId table = matrix("table", WeightRole::head, 40);
    p.ops.push_back({-1, EmbedOp{table, 1.0f, 0}});
    p.ops.push_back({0, QkvOp{.in = 0,
                              .norm = norm,
                              .q = matrix("q", WeightRole::qkv, 64),
                              .k = matrix("k", WeightRole::qkv, 64),
                              .v = matrix("v", WeightRole::qkv, 64),
                              .q_out = 1,
                              .k_out = 2,
                              .v_out = 3}});
    p.ops.push_back({0, RopeAppendOp{.q = 1, .k = 2, .v = 3, .n_heads = 2, .rope = 0, .state = 0}});
    p.ops.push_back({0, AttentionOp{.q = 1, .out = 4, .n_heads = 2, .state = 0, .scale = 1.0f}});
    p.ops.push_back(
        {0, ResidualLinearOp{
                .in = 4, .weight = matrix("out", WeightRole::attn_out, 64), .residual = 0, .out = 0}});
    p.ops.push_back({0, GateUpOp{.in = 0,
                                 .norm = norm,
                                 .gate = matrix("gate", WeightRole::gate_up, 64),
                                 .up = matrix("up", WeightRole::gate_up, 64),
                                 .activation = Activation::silu,
                                 .out = 5}});
    p.ops.push_back({-1, HeadOp{.in = 0, .norm = norm, .weight = table, .logits = 6}});
    p.ops.push_back({-1, SampleOp{6}});
    check(p);
  }
};

class ExecutableTest : public ::testing::Test {
 protected:
  ExecutableTest() {
    for (const auto& w : model_.p.weights) {
      offsets_.push_back(weight_bytes_);
      weight_bytes_ += cuda_target().weight_layout(w, Mode::exact).bytes;
    }
    weights_ = std::make_unique<VirtualArena>(rig_.gpu, "weights", weight_bytes_);
    states_ =
        std::make_unique<VirtualArena>(rig_.gpu, "states", 8 * kv_layout(model_.p.states[0]).page_bytes);
    const std::uint64_t bytes = cuda_target().workspace_bytes(model_.p, limits_, Mode::exact, 1);
    workspace_ = std::make_unique<VirtualArena>(rig_.gpu, "workspace", bytes);
    for (const auto offset : offsets_)
      bindings_.weights.push_back(reinterpret_cast<std::byte*>(weights_->address() + offset));
    bindings_.states.push_back(reinterpret_cast<std::byte*>(states_->address()));
    bindings_.pages = {8};
    bindings_.workspace = reinterpret_cast<std::byte*>(workspace_->address());
    bindings_.workspace_bytes = bytes;
  }
  std::unique_ptr<CudaExecutable> compile() {
    return std::make_unique<CudaExecutable>(rig_.gpu, model_.p, bindings_, limits_, Mode::exact);
  }
  // n rows of slot 0 from `position`; the last one is sampled.
  StepBlock block(std::int32_t position, std::uint32_t n, std::int32_t token = 1) {
    tokens_.assign(n, token);
    positions_.resize(n);
    std::iota(positions_.begin(), positions_.end(), position);
    rows_.assign(n, 0);
    sequences_ = {{0, 0, n, position}};
    outputs_ = {{n - 1, 0, static_cast<std::uint8_t>(Want::sample), {}, nullptr}};
    return {tokens_, positions_, rows_, sequences_, outputs_, tables_, 2};
  }

  Rig rig_;
  SmallModel model_;
  StepLimits limits_{.rows = 200, .outputs = 4, .slots = 2, .context = 128};
  std::vector<std::uint64_t> offsets_;
  std::uint64_t weight_bytes_ = 0;
  std::unique_ptr<VirtualArena> weights_, states_, workspace_;
  Bindings bindings_;
  std::vector<std::int32_t> tokens_, positions_, tables_ = {3, 5};
  std::vector<std::uint32_t> rows_;
  std::vector<StepSequence> sequences_;
  std::vector<StepOutput> outputs_;
};

TEST_F(ExecutableTest, SmallStepsAreGraphsBuiltAtCompileAndLargeOnesPlainLaunches) {
  const auto e = compile();
  const int graphs = rig_.fake.graphs;
  EXPECT_GT(graphs, 0);
  rig_.fake.launches.clear();
  e->launch(block(0, 5));
  e->wait();
  EXPECT_EQ(rig_.fake.graph_launches, 1);
  EXPECT_EQ(rig_.fake.launches["general_sample"], 1);
  EXPECT_EQ(rig_.fake.launches["general_embed"], 0);
  limits_.context = 128;
  e->launch(block(0, 128));
  e->wait();
  EXPECT_EQ(rig_.fake.graphs, graphs);
}

TEST_F(ExecutableTest, NothingIsAllocatedPerStep) {
  const auto e = compile();
  const auto pinned = rig_.fake.pinned, used = rig_.fake.used;
  const int events = rig_.fake.events;
  for (int i = 0; i < 20; ++i) {
    e->launch(block(i, 1, i ? kLastSample : 1));
    e->wait();
  }
  EXPECT_EQ(rig_.fake.pinned, pinned);
  EXPECT_EQ(rig_.fake.used, used);
  EXPECT_EQ(rig_.fake.events, events);
}

TEST_F(ExecutableTest, TwoStepsMayBeInFlightAndResultsComeInOrder) {
  const auto e = compile();
  std::int32_t next = 7;
  const Workspace space = lay_out(model_.p, limits_, Mode::exact);
  rig_.fake.kernel = [&](const std::string& name, void**) {
    if (name == "general_sample")
      *reinterpret_cast<std::int32_t*>(workspace_->address() + space.sampled) = next++;
  };
  e->launch(block(0, 1));
  e->launch(block(1, 1, kLastSample));
  EXPECT_THROW(e->launch(block(2, 1, kLastSample)), Error);
  EXPECT_EQ(e->wait().tokens[0], 7);
  EXPECT_EQ(e->wait().tokens[0], 8);
}

TEST_F(ExecutableTest, TheDeviceSeesTheBlockAsGiven) {
  const auto e = compile();
  const Workspace space = lay_out(model_.p, limits_, Mode::exact);
  e->launch(block(60, 7, 9));
  e->wait();
  const auto step = workspace_->address() + space.step;
  const auto& header = *reinterpret_cast<const StepHeader*>(step);
  EXPECT_EQ(header.n_rows, 7u);
  EXPECT_EQ(header.n_outputs, 1u);
  EXPECT_EQ(header.table_stride, 2u);
  EXPECT_EQ(reinterpret_cast<const std::int32_t*>(step + space.positions)[6], 66);
  EXPECT_EQ(reinterpret_cast<const std::int32_t*>(step + space.tables)[1], 5);
  EXPECT_EQ(reinterpret_cast<const DeviceOutput*>(step + space.outputs)[0].row, 6u);
}

TEST_F(ExecutableTest, RefusesBlocksThatBreakItsLimits) {
  const auto e = compile();
  EXPECT_THROW(e->launch(block(0, 201)), Error);
  EXPECT_THROW(e->launch(block(120, 20)), Error);
  EXPECT_THROW(e->launch(block(0, 1, 40)), Error);
  EXPECT_THROW(e->launch(block(0, 1, kLastSample)), Error);
  tables_ = {3, -1};
  EXPECT_NO_THROW(e->launch(block(0, 64)));
  EXPECT_THROW(e->launch(block(0, 65)), Error);
  tables_ = {8, 0};
  EXPECT_THROW(e->launch(block(0, 1)), Error);
}

TEST_F(ExecutableTest, ALostDeviceFailsItsStepsAndNothingElse) {
  const auto e = compile();
  rig_.fake.fail = [](const std::string& call) {
    return call == "event_synchronize" ? kCuIllegalAddress : 0;
  };
  e->launch(block(0, 1));
  EXPECT_THAT(error_of([&] { e->wait(); }).what(), HasSubstr("CUDA0 is lost"));
  rig_.fake.fail = {};
  EXPECT_THAT(error_of([&] { e->launch(block(0, 1)); }).what(),
              HasSubstr("CUDA0 is lost since an earlier error"));
}

TEST_F(ExecutableTest, FailuresAtCompileLeaveNothingBehind) {
  for (const char* call : {"capture_begin", "graph_instantiate", "host_alloc", "event_create", "set32"}) {
    rig_.fake.fail = [&](const std::string& name) { return name == call ? 1 : 0; };
    EXPECT_THROW(compile(), Error) << call;
    rig_.fake.fail = {};
    EXPECT_EQ(rig_.fake.streams, 0) << call;
    EXPECT_EQ(rig_.fake.events, 0) << call;
    EXPECT_EQ(rig_.fake.pinned, 0u) << call;
    EXPECT_EQ(rig_.fake.graphs, 0) << call;
  }
}

TEST_F(ExecutableTest, CopiesWholePagesOfAGroup) {
  const auto e = compile();
  const auto page = kv_layout(model_.p.states[0]).page_bytes;
  auto* state = reinterpret_cast<char*>(states_->address());
  std::memset(state + 2 * page, 5, page);
  const std::int32_t from[] = {2}, to[] = {6};
  e->copy_pages(0, from, to);
  EXPECT_EQ(std::memcmp(state + 2 * page, state + 6 * page, page), 0);
}

TEST(Wire, AProgramSurvivesTheInterface) {
  const SmallModel model;
  const WireProgram wire(model.p);
  const Program back = from_wire(wire.view());
  ASSERT_EQ(back.ops.size(), model.p.ops.size());
  for (std::size_t i = 0; i < back.ops.size(); ++i)
    EXPECT_EQ(back.ops[i].body.index(), model.p.ops[i].body.index());
  const auto& qkv = std::get<QkvOp>(back.ops[1].body);
  EXPECT_EQ(qkv.v, std::get<QkvOp>(model.p.ops[1].body).v);
  EXPECT_EQ(back.weights[1].name, "table");
  EXPECT_EQ(back.buffers[6].rows, RowSet::outputs);
  abi::ProgramView broken = wire.view();
  std::vector<abi::Operation> ops(broken.ops.data, broken.ops.data + broken.ops.size);
  ops[0].kind = 99;
  broken.ops.data = ops.data();
  EXPECT_THROW(from_wire(broken), Error);
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
}  // namespace strata::cuda
