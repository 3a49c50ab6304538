// The step kernel on the CPU (emulation/), against a plain forward pass: what it computes, and in a build
// with a sanitizer how its warps and blocks share memory.
#include <gtest/gtest.h>

#include "device/cuda/emulation/attention.h"
// The kernel itself; its headers find CUDA's and common/ptx.cuh in emulation/.
#include "device/cuda/hopper/step/step_sm90a.cu"

namespace {

using namespace steelyard::cuda;
using namespace steelyard::cuda::hopper;
using emulation::Aligned;
using emulation::Matrix;
using emulation::normal;
using emulation::Vector;

struct Case {
  const char* name;
  std::uint32_t head_dim, blocks, position, window = 0;
  bool post_norms = false;
  std::uint32_t vocab = 300;
  int type = kF16;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

constexpr std::uint32_t kWidth = 320, kHeads = 4, kKvHeads = 2, kInner = 512, kLayers = 2;

struct Norm {
  Aligned<float> weights{kWidth};
  Norm() {
    for (std::uint32_t i = 0; i < kWidth; i++) weights[i] = 1 + 0.1f * normal();
  }
  Vector operator()(Vector x) const {
    double squares = 0;
    for (double v : x) squares += v * v;
    for (std::uint32_t i = 0; i < kWidth; i++) x[i] *= weights[i] / std::sqrt(squares / kWidth + 1e-5);
    return x;
  }
};

struct Layer {
  Matrix q, k, v, out, gate, up, down;
  Norm before, after, inner;  // of attention's input and output, of the products' input
  emulation::Pages pages;
  Layer(std::uint32_t dim, std::size_t n_pages, int type)
      : q(kHeads * dim, kWidth, type),
        k(kKvHeads * dim, kWidth, type),
        v(kKvHeads * dim, kWidth, type),
        out(kWidth, kHeads * dim, type),
        gate(kInner, kWidth, type),
        up(kInner, kWidth, type),
        down(kWidth, kInner, type),
        pages(kKvHeads, dim, n_pages) {}
  Vector feed_forward(const Vector& in) const {
    const Vector u = up * in;
    Vector g = gate * in;
    for (std::uint32_t i = 0; i < kInner; i++) g[i] *= u[i] / (1 + std::exp(-g[i]));
    return down * g;
  }
};

class StepModel {
 public:
  // Of several ranks each has other weights, as if the model's heads and inner width were theirs together;
  // `sums`: StepSum of the first sum.
  explicit StepModel(const Case& c, StepSum sums = {})
      : c_(c), sums_(sums), n_pages_(c.position / kPageTokens + 2), head_(c.vocab, kWidth, c.type) {
    for (std::uint32_t i = 0; i < kLayers; i++) layers_.emplace_back(c.head_dim, n_pages_, c.type);
    for (std::uint32_t i = 0; i < n_pages_; i++)
      table_.push_back(static_cast<std::int32_t>(n_pages_ - 1 - i));
    std::int32_t written = kBeforeStep;
    for (Layer& layer : layers_) written = add(layer, written);
    StepLinear& s =
        product({head_.segment(logits.data())}, words_.data(), written, &last_, StepOut::floats, kWidth);
    s.wanted = 1, s.normed = normed_.data();
    header_ = {1, 1, 1, n_pages_, 0, {}};
  }

  // Norms and rows are whole on every rank.
  void share_norms(const StepModel& other) {
    const auto copy = [](Norm& to, const Norm& from) {
      for (std::uint32_t i = 0; i < kWidth; i++) to.weights[i] = from.weights[i];
    };
    for (std::uint32_t i = 0; i < kLayers; i++) {
      copy(layers_[i].before, other.layers_[i].before);
      copy(layers_[i].after, other.layers_[i].after);
      copy(layers_[i].inner, other.layers_[i].inner);
    }
    copy(last_, other.last_);
  }

  // Logits of the row at this position; the state grows by it.
  void run(std::uint32_t position) {
    prepare(position);
    launch();
  }
  void prepare(std::uint32_t position) {
    header_.step++, position_ = static_cast<std::int32_t>(position);
    for (std::uint32_t i = 0; i < kWidth; i++) x[i] = normal();
    for (std::uint32_t i = 0; i < c_.head_dim / 2; i++) {
      const double angle = position * std::pow(1e4, -2.0 * i / c_.head_dim);
      rotation_[2 * i] = static_cast<float>(std::cos(angle)),
                    rotation_[2 * i + 1] = static_cast<float>(std::sin(angle));
    }
  }
  void launch() {
    StepArg arg{};
    arg.ops = ops_.data(), arg.n_ops = static_cast<std::uint32_t>(ops_.size());
    arg.ring_bytes = unit_bytes(kF16) * 5 / 2, arg.region_bytes = 32768;
    arg.blocks_reciprocal = static_cast<std::uint32_t>((std::uint64_t{1} << 32) / c_.blocks + 1);
    arg.step.header = &header_, arg.step.positions = &position_, arg.step.block_tables = table_.data();
    arg.step.abort = &abort_;
    emulation::launch({c_.blocks, 1, 1}, kThreads,
                      kStepRegionOffset + arg.region_bytes + kGemvWarps * arg.ring_bytes,
                      [&] { decode_step(arg); });
  }

  // The same, after run(): it reads the own key and value from their page.
  Vector reference() const { return reference({this}); }
  // Of this rank's head; `ranks`: all, this one too.
  Vector reference(const std::vector<const StepModel*>& ranks) const {
    Vector h(x.data(), x.data() + kWidth);
    const auto add = [](Vector& to, const Vector& y) {
      for (std::uint32_t i = 0; i < kWidth; i++) to[i] += y[i];
    };
    for (std::uint32_t i = 0; i < kLayers; i++) {
      Vector mixed(kWidth), down(kWidth);
      for (const StepModel* r : ranks)
        add(mixed, r->layers_[i].out * r->attend(r->layers_[i], layers_[i].before(h)));
      add(h, c_.post_norms ? layers_[i].after(mixed) : mixed);
      for (const StepModel* r : ranks) add(down, r->layers_[i].feed_forward(layers_[i].inner(h)));
      add(h, down);
    }
    return head_ * last_(h);
  }

  Aligned<float> x{kWidth}, logits{2048};

 private:
  StepOp& push(StepKind kind) {
    StepOp op{};
    op.kind = kind, op.rotation = static_cast<std::uint32_t>(ops_.size() * 29 % c_.blocks);
    ops_.push_back(op);
    return ops_.back();
  }
  std::int32_t last_op() const { return static_cast<std::int32_t>(ops_.size()) - 1; }

  StepLinear& product(std::initializer_list<Segment> segments, void* in, std::int32_t written,
                      const Norm* norm, StepOut out, std::uint32_t cols) {
    StepLinear& s = push(StepKind::linear).linear;
    s = {};
    for (const Segment& segment : segments) {
      s.linear.segments[s.linear.n_segments++] = segment;
      s.linear.groups += segment.groups;
    }
    s.linear.x = static_cast<float*>(in), s.linear.cols = cols, s.linear.eps = 1e-5f;
    s.linear.norm = norm ? norm->weights.data() : nullptr;
    s.out = out, s.x_op = written, s.residual_op = kBeforeStep;
    return s;
  }

  // A layer's ops; returns the one that writes its result.
  std::int32_t add(Layer& layer, std::int32_t written) {
    void* in = written == kBeforeStep ? static_cast<void*>(x.data()) : words_.data();
    product({layer.q.segment(q_.data()), layer.k.segment(k_.data()), layer.v.segment(v_.data())}, in, written,
            &layer.before, StepOut::words, kWidth);
    add_attention(layer);
    StepLinear& out = product({layer.out.segment(c_.post_norms ? branch_.data() : words_.data())},
                              mixed_.data(), last_op(), nullptr, StepOut::words, kHeads * c_.head_dim);
    if (c_.post_norms) {
      push(StepKind::add_norm).add = {
          branch_.data(), layer.after.weights.data(), in, words_.data(), 1e-5f, kWidth, written};
    } else {
      add_residual(out, in, written);
    }
    const std::int32_t middle = last_op();
    sum_over_ranks(ops_[c_.post_norms ? middle - 1 : middle].linear);
    StepLinear& up = product({layer.gate.segment(inner_.data()), layer.up.segment(nullptr)}, words_.data(),
                             middle, &layer.inner, StepOut::half_words, kWidth);
    up.linear.epilogue = Epilogue::gate_up, up.linear.groups /= 2;
    add_residual(product({layer.down.segment(words_.data())}, inner_.data(), last_op(), nullptr,
                         StepOut::words, kInner),
                 words_.data(), middle);
    sum_over_ranks(ops_.back().linear);
    return last_op();
  }
  void sum_over_ranks(StepLinear& s) {
    if (sums_.ranks == 0) return;
    s.sum = sums_;
    s.sum.words += n_sums_++ % 2 * sums_.ranks * kWidth;
  }
  static void add_residual(StepLinear& s, void* from, std::int32_t written) {
    s.linear.epilogue = Epilogue::residual, s.linear.residual = static_cast<float*>(from),
    s.residual_op = written;
  }
  void add_attention(Layer& layer) {
    const std::int32_t qkv = last_op();
    StepAttention& s = push(StepKind::attention).attention;
    s = {};
    s.q = q_.data(), s.k = k_.data(), s.v = v_.data(), s.out = mixed_.data(), s.partials = partials_.data();
    s.qkv_op = qkv, s.kv = layer.pages.view;
    s.rope = {rotation_.data(), 0, c_.head_dim};
    s.n_heads = kHeads, s.group = kHeads / kKvHeads, s.window = c_.window, s.scale = 0.125f;
    s.most_parts = c_.blocks / kKvHeads, s.parts_reciprocal = 65536 / s.most_parts + 1;
    s.worker_bits = static_cast<std::uint32_t>(std::countr_zero(kGemvWarps * 64u / c_.head_dim));
  }

  Vector attend(const Layer& layer, const Vector& in) const {
    const std::uint32_t dim = c_.head_dim, position = static_cast<std::uint32_t>(position_);
    Vector q = layer.q * in, mixed(kHeads * dim);
    for (std::size_t i = 0; i < q.size(); i += 2) {
      const double c = rotation_[i % dim], s = rotation_[i % dim + 1], a = q[i], b = q[i + 1];
      q[i] = a * c - b * s, q[i + 1] = a * s + b * c;
    }
    for (std::uint32_t h = 0; h < kHeads; h++) {
      const emulation::Query query{table_.data(), position, h / 2, c_.window, 0.125};
      const Vector head = emulation::attend(layer.pages, query, q.data() + h * dim);
      std::copy(head.begin(), head.end(), mixed.begin() + h * dim);
    }
    return mixed;
  }

  const Case c_;
  const StepSum sums_;
  std::uint32_t n_sums_ = 0;
  const std::uint32_t n_pages_;
  std::vector<Layer> layers_;
  Matrix head_;
  Norm last_;
  std::vector<std::int32_t> table_;
  std::vector<StepOp> ops_;
  StepHeader header_{};
  std::int32_t position_ = 0;
  std::uint32_t abort_ = 0;
  Aligned<float> rotation_{256}, normed_{kWidth};
  Aligned<std::uint64_t> words_{kWidth}, branch_{kWidth}, q_{kHeads * 256}, k_{kKvHeads * 256},
      v_{kKvHeads * 256}, mixed_{kHeads * 128}, inner_{kInner / 2}, partials_{kHeads * kStepParts * 257};
};

class DecodeStepTest : public ::testing::TestWithParam<Case> {};

double relative_error(const StepModel& model, const Vector& want) {
  double error = 0, norm = 0;
  for (std::size_t r = 0; r < want.size(); r++) {
    error += (model.logits[r] - want[r]) * (model.logits[r] - want[r]);
    norm += want[r] * want[r];
  }
  return std::sqrt(error / norm);
}

TEST_P(DecodeStepTest, IsTheModel) {
  if (!emulation::has_threads(GetParam().blocks * kThreads))
    GTEST_SKIP() << "needs " << GetParam().blocks * kThreads << " threads, more than the system gives";
  StepModel model(GetParam());
#ifdef __SANITIZE_THREAD__
  constexpr std::uint32_t kSteps = 1;  // slow
#else
  constexpr std::uint32_t kSteps = 2;  // the second reads what the first left
#endif
  for (std::uint32_t i = 0; i < kSteps; i++) {
    model.run(GetParam().position + i);
    EXPECT_LT(relative_error(model, model.reference()), 3e-3) << "step " << i;  // activations in halves
  }
}

// Two blocks have products in which one has no share; 1200 rows of a head are more than a block holds at
// once.
INSTANTIATE_TEST_SUITE_P(Emulated, DecodeStepTest,
                         ::testing::Values(Case{"heads_of_64", 64, 2, 70, 0, false, 1200},
                                           Case{"first_token_five_bits", 64, 2, 0, 0, false, 300, kQ5_1},
                                           Case{"heads_of_128_window_post_norms", 128, 3, 100, 40, true},
                                           Case{"heads_of_256", 256, 2, 130},
                                           Case{"keys_shared_by_blocks", 64, 4, 600}),
                         [](const auto& info) { return std::string(info.param.name); });

// Two ranks, each a launch of its own, that add up their products' rows.
class RanksOfAStep : public ::testing::TestWithParam<Case> {};

TEST_P(RanksOfAStep, AreTheModel) {
  const Case& c = GetParam();
  if (!emulation::has_threads(2 * c.blocks * kThreads))
    GTEST_SKIP() << "needs " << 2 * c.blocks * kThreads << " threads, more than the system gives";
  Aligned<std::uint64_t> words(2 * 2 * kWidth);
  StepModel first(c, {words.data(), 0, 2, kWidth}), second(c, {words.data(), 1, 2, kWidth});
  second.share_norms(first);
  first.prepare(c.position), second.prepare(c.position);
  for (std::uint32_t i = 0; i < kWidth; i++) second.x[i] = first.x[i];
  std::thread other([&] { second.launch(); });
  first.launch();
  other.join();
  EXPECT_LT(relative_error(first, first.reference({&first, &second})), 3e-3);
  EXPECT_LT(relative_error(second, second.reference({&first, &second})), 3e-3);
}

// Of its sums one is normed before it is added, the other isn't.
INSTANTIATE_TEST_SUITE_P(Emulated, RanksOfAStep, ::testing::Values(Case{"two_ranks", 64, 2, 20, 0, true}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
