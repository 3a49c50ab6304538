// Executables against a fake driver: graphs, steps in flight, failures.
#include "device/cuda/host/executable.h"

#include <cstring>
#include <numeric>

#include "base/dtype.h"
#include "base/error.h"
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/weights/layout.h"
#include "device/cuda/host/arena.h"
#include "device/cuda/host/workspace.h"
#include "device/cuda/testing/small_model.h"
#include "device/device.h"
#include "device/link.h"
#include "program/share.h"

namespace steelyard::cuda {
namespace {

using ::testing::HasSubstr;

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
  std::unique_ptr<CudaExecutable> compile(Mode mode = Mode::exact) {
    return std::make_unique<CudaExecutable>(rig_.gpu, model_.p, bindings_, limits_, mode);
  }
  // n rows of slot 0 from `position`; the last one is sampled.
  StepBlock block(std::int32_t position, std::uint32_t n, std::int32_t token = 1) {
    tokens_.assign(n, token);
    positions_.resize(n);
    std::iota(positions_.begin(), positions_.end(), position);
    rows_.assign(n, 0);
    sequences_ = {{0, 0, n, position}};
    outputs_ = {{n - 1, 0, Want::sample, {}, nullptr}};
    return {tokens_, positions_, rows_, sequences_, outputs_, tables_, 2, number_++};
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
  std::uint64_t number_ = 0;
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
  const auto pinned = rig_.fake.pinned, used = rig_.fake.used();
  const int events = rig_.fake.events;
  for (int i = 0; i < 20; ++i) {
    e->launch(block(i, 1, i ? kLastSample : 1));
    e->wait();
  }
  EXPECT_EQ(rig_.fake.pinned, pinned);
  EXPECT_EQ(rig_.fake.used(), used);
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
  EXPECT_EQ(header.step, number_ - 1);
  EXPECT_EQ(reinterpret_cast<const std::int32_t*>(step + space.positions)[6], 66);
  EXPECT_EQ(reinterpret_cast<const std::int32_t*>(step + space.tables)[1], 5);
  EXPECT_EQ(reinterpret_cast<const DeviceOutput*>(step + space.outputs)[0].row, 6u);
}

// A rank's sums and logits go through boxes that all ranks reach; the kernels get the step's whole number.
TEST_F(ExecutableTest, RanksTradeSumsInTheGraph) {
  const Share shares[] = {{0, 3, 0, 2}, {0, 3, 1, 2}};
  limits_.rows = 8;
  const auto cpu = make_cpu_device({.threads = 1});
  const Program whole = model_.p;
  for (const Program& part : part_programs(whole, shares)) {
    model_.p = part;
    Links links(*cpu, part.links, limits_);
    bindings_.links = links.boxes(), bindings_.tokens = links.tokens();
    const auto e = compile();
    rig_.fake.launches.clear();
    ExchangeArg seen{};
    rig_.fake.kernel = [&](const std::string& name, void** args) {
      if (name == "general_sum") seen = *static_cast<const ExchangeArg*>(args[0]);
    };
    e->set_tracing(true);  // plain launches instead of a graph
    e->launch(block(0, 5));
    e->wait();
    EXPECT_EQ(rig_.fake.launches["general_sum"], 3);
    EXPECT_EQ(rig_.fake.launches["general_give"], 4);
    EXPECT_EQ(rig_.fake.launches["general_take"], part.rank == 1 ? 1 : 0);
    EXPECT_EQ(seen.rank, part.rank);
    EXPECT_EQ(seen.turn, 2u);
  }
}

// Tokens are resolved and kept first, also where no op reads them: a later part of a model samples with
// penalties.
TEST_F(ExecutableTest, APartWithoutAnEmbeddingKnowsItsTokens) {
  model_.p.ops.erase(model_.p.ops.begin());
  const auto e = compile();
  rig_.fake.launches.clear();
  std::string first;
  rig_.fake.kernel = [&](const std::string& name, void**) {
    if (first.empty()) first = name;
  };
  e->set_tracing(true);  // plain launches instead of a graph
  e->launch(block(0, 5));
  e->wait();
  EXPECT_EQ(first, "general_tokens");
  EXPECT_EQ(rig_.fake.launches["general_tokens"], 1);
  EXPECT_EQ(rig_.fake.launches["general_embed"], 0);
}

TEST_F(ExecutableTest, RefusesBlocksThatBreakItsLimits) {
  const auto e = compile();
  EXPECT_THROW(e->launch(block(0, 201)), Error);
  EXPECT_THROW(e->launch(block(0, 1, kLastSample)), Error);
  tables_ = {8, 0};
  EXPECT_THROW(e->launch(block(0, 1)), Error);
}

TEST_F(ExecutableTest, AResetSlotHasNoLastSample) {
  const auto e = compile();
  e->launch(block(0, 1));
  EXPECT_NO_THROW(e->launch(block(1, 1, kLastSample)));
  e->reset_slot(0);
  EXPECT_THAT(error_of([&] { e->launch(block(2, 1, kLastSample)); }).what(),
              HasSubstr("slot 0 has no last sample"));
}

TEST_F(ExecutableTest, ALostDeviceFailsItsStepsAndNothingElse) {
  const auto e = compile();
  rig_.fake.fail = [](const std::string& call) { return call == "event_query" ? kCuIllegalAddress : 0; };
  e->launch(block(0, 1));
  EXPECT_THAT(error_of([&] { e->wait(); }).what(), HasSubstr("CUDA0 is lost"));
  rig_.fake.fail = {};
  EXPECT_THAT(error_of([&] { e->launch(block(0, 1)); }).what(),
              HasSubstr("CUDA0 is lost since an earlier error"));
}

TEST_F(ExecutableTest, TwoExecutablesOfOneDeviceRunSideBySide) {
  const auto a = compile();
  const auto b = compile();
  EXPECT_EQ(rig_.fake.streams, 1);  // the device's queue
  a->launch(block(0, 1));
  b->launch(block(0, 3));
  a->launch(block(1, 1, kLastSample));
  EXPECT_EQ(b->wait().tokens.size(), 1u);
  EXPECT_EQ(a->wait().tokens.size(), 1u);
  EXPECT_EQ(a->wait().tokens.size(), 1u);
  EXPECT_THROW(b->launch(block(3, 1, 40)), Error);
  EXPECT_NO_THROW(a->launch(block(2, 1, kLastSample)));
}

// What one executable did to the device ends the other's steps too, and both go without a wait.
TEST_F(ExecutableTest, ALossIsSeenByEveryExecutable) {
  auto a = compile(), b = compile();
  a->launch(block(0, 1));
  b->launch(block(0, 1));
  rig_.fake.fail = [](const std::string& call) { return call == "event_query" ? kCuIllegalAddress : 0; };
  EXPECT_THROW(a->wait(), Error);
  EXPECT_THAT(error_of([&] { b->wait(); }).what(), HasSubstr("CUDA0 is lost"));
  EXPECT_TRUE(rig_.gpu.lost());
  a.reset();
  b.reset();
  EXPECT_EQ(rig_.fake.pinned, 0u);
}

TEST_F(ExecutableTest, StagingIsWhatTheTargetPlans) {
  const auto e = compile();
  EXPECT_EQ(e->staging_bytes(), cuda_target().staging_bytes(model_.p, limits_));
  EXPECT_EQ(e->staging_bytes(), rig_.fake.pinned);
}

TEST_F(ExecutableTest, FailuresAtCompileLeaveNothingBehind) {
  for (const char* call :
       {"capture_begin", "graph_instantiate", "graph_upload", "host_alloc", "event_create", "set32"}) {
    rig_.fake.fail = [&](const std::string& name) { return name == call ? 1 : 0; };
    EXPECT_THROW(compile(), Error) << call;
    rig_.fake.fail = {};
    EXPECT_EQ(rig_.fake.streams, 1) << call;
    EXPECT_EQ(rig_.fake.events, 0) << call;
    EXPECT_EQ(rig_.fake.pinned, 0u) << call;
    EXPECT_EQ(rig_.fake.graphs, 0) << call;
  }
}

// Tags of steps repeat: no word of the last time round may be there then.
TEST_F(ExecutableTest, WordsAreClearedWhenStepsAreCountedAnew) {
  // One head of 64, which the step kernel knows.
  model_.p.states[0] = {0, 0, DType::F16, 1, 64, 64};
  std::get<RopeAppendOp>(model_.p.ops[2].body).n_heads = 1;
  std::get<AttentionOp>(model_.p.ops[3].body).n_heads = 1;
  VirtualArena space(rig_.gpu, "workspace", cuda_target().workspace_bytes(model_.p, limits_, Mode::fast, 1));
  bindings_.workspace = reinterpret_cast<std::byte*>(space.address());
  bindings_.workspace_bytes = space.stats().used;
  const auto e = compile(Mode::fast);
  ASSERT_THAT(e->report(), HasSubstr("one kernel a step of one row"));
  const Workspace at = lay_out(model_.p, limits_, Mode::fast);
  const HopperScratch scratch = lay_out_scratch(model_.p, limits_, Mode::fast);
  const StepMemory memory = step_memory(model_.p);
  auto* step = reinterpret_cast<unsigned char*>(space.address() + at.scratch + scratch.step);
  const auto* header = reinterpret_cast<const StepHeader*>(space.address() + at.step);
  number_ = hopper::kStepNumbers - 1;
  step[memory.words] = step[memory.bytes - 1] = 7;
  const unsigned char table = step[memory.words - 1] = 9;
  e->launch(block(0, 1));
  e->wait();
  EXPECT_EQ(header->step, hopper::kStepNumbers - 1);
  EXPECT_EQ(step[memory.words], 7);
  e->launch(block(1, 1, kLastSample));
  e->wait();
  EXPECT_EQ(header->step, 0u);
  EXPECT_EQ(step[memory.words], 0);
  EXPECT_EQ(step[memory.bytes - 1], 0);
  EXPECT_EQ(step[memory.words - 1], table);
  EXPECT_LT((std::uint64_t{hopper::kStepNumbers} * hopper::kStepTags) + hopper::kStepTags - 1, 1ull << 32);
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

}  // namespace
}  // namespace steelyard::cuda
