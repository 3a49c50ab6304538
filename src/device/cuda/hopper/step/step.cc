#include "device/cuda/hopper/step/step.h"

#include <algorithm>
#include <map>

#include "base/dtype.h"
#include "device/cuda/hopper/weights/format.h"
#include "device/cuda/hopper/weights/layout.h"

namespace steelyard::cuda::hopper {
namespace {

constexpr const char* kKernel = "decode_step";
constexpr std::uint32_t kBlockThreads = kGemvWarps * 32;
constexpr std::uint32_t kMostNormed = 2 * 8 * kBlockThreads;  // columns that stay in registers
constexpr std::uint32_t kMergeBytes = 40 << 10;  // attention's, at most: more would shorten the rings

}  // namespace

Segment make_segment(const DeviceProgram& in, WeightId weight, WeightId bias, float* out) {
  const WeightSpec& w = in.program->weights[weight];
  const int t = static_cast<int>(w.type);
  return {pointer<const std::uint8_t>(in.weights[weight]),
          bias == kNoWeight ? nullptr : pointer<const float>(in.weights[bias]),
          out,
          group_bytes(t, w.cols),
          w.rows,
          ceil_div(w.rows, kGroupRows),
          unit_bytes(t),
          chunk_bytes(t),
          t};
}

// Writes the table, op by op; `ok` is false once something isn't covered.
class StepWriter {
 public:
  StepWriter(const DeviceProgram& in, DevicePtr memory)
      : in_(in), p_(*in.program), memory_(memory), space_(step_memory(p_)) {}

  std::optional<StepKernel> write(CompileServices& services) {
    for (std::size_t i = 0; i < p_.ops.size() && ok_; ++i) {
      next_ = i + 1 < p_.ops.size() ? &p_.ops[i + 1] : nullptr;
      std::visit([&](const auto& op) { add(op); }, p_.ops[i].body);
    }
    StepKernel kernel;
    ok_ = ok_ && sums_ % 2 == 0;  // places are taken in turn, from step to step too
    if (!ok_ || ops_.empty() || ops_.size() >= kStepTags || !fit(kernel, services)) return std::nullopt;
    services.upload(memory_, ops_.data(), ops_.size() * sizeof(StepOp));
    kernel.handed_on_ = handed_on_;
    return kernel;
  }

 private:
  struct Contents {  // a buffer's contents
    std::int32_t op = kBeforeStep;
    StepOut as = StepOut::floats;
  };

  std::uint64_t* words(std::size_t slot) const {
    return pointer<std::uint64_t>(memory_ + space_.words + slot * space_.slot_bytes);
  }
  std::uint64_t* branch() const { return words(p_.buffers.size()); }
  // A buffer as the step's ops see it: what an earlier one left, or floats from before.
  Contents contents(BufferId id) const {
    const auto it = written_.find(id);
    return it == written_.end() ? Contents{} : it->second;
  }
  void* place(BufferId id) const {
    return contents(id).op == kBeforeStep ? pointer<void>(in_.buffers[id]) : words(id);
  }
  // The op pushed last writes the buffer.
  void wrote(BufferId id, StepOut as) { written_[id] = {static_cast<std::int32_t>(ops_.size()) - 1, as}; }
  std::uint32_t width(BufferId id) const { return in_.width(id); }
  const float* vector(WeightId id) const { return in_.vector(id); }

  StepOp& push(StepKind kind) {
    StepOp op{};
    op.kind = kind;
    op.rotation = static_cast<std::uint32_t>(ops_.size() * 29 % in_.gpu.sms);
    return ops_.emplace_back(op);
  }

  // Floats and words are read with a norm, half words without.
  StepLinear& product(std::initializer_list<Segment> segments, BufferId x, NormRef norm, Epilogue epilogue,
                      StepOut out) {
    const Contents in = contents(x);
    const std::uint32_t cols = width(x);
    ok_ = ok_ && static_cast<bool>(norm) != (in.as == StepOut::half_words) && (!norm || cols <= kMostNormed);
    StepOp& op = push(StepKind::linear);
    op.linear = StepLinear{};
    op.linear.out = out;
    op.linear.x_op = in.op;
    op.linear.residual_op = kBeforeStep;
    LinearArg& a = op.linear.linear;
    for (const Segment& s : segments) {
      ok_ = ok_ && is_repacked_type(s.type) && s.group_bytes != 0 &&
            cols % (is_super(s.type) ? kUnitCols : kChunkCols) == 0;
      largest_unit_ = std::max(largest_unit_, s.unit_bytes);
      a.segments[a.n_segments++] = s;
      a.groups += s.groups;
    }
    if (epilogue == Epilogue::gate_up) a.groups /= 2;
    a.epilogue = epilogue;
    a.x = static_cast<const float*>(place(x));
    a.norm = vector(norm.weight);
    a.eps = norm.eps;
    a.cols = cols;
    const std::uint32_t units = units_of(cols);
    region_bytes_ = std::max(region_bytes_, (units * kUnitCols + 32) * 2 + units * 16 * 4);
    return op.linear;
  }

  void add(const EmbedOp&) {}
  void add(const SampleOp&) {}
  void add(const ReceiveOp&) {}  // its rows are there as floats
  void add(const SendOp& o) {
    const Contents in = contents(o.in);
    ok_ = ok_ && in.as != StepOut::half_words;
    if (in.op != kBeforeStep) handed_on_ = {words(o.in), pointer<float>(in_.buffers[o.in]), width(o.in)};
  }
  void add(const SumOp&) {}     // with its product; that of the embedding comes before the step
  void add(const GatherOp&) {}  // after the step
  Segment segment(WeightId weight, WeightId bias, void* out) const {
    return make_segment(in_, weight, bias, static_cast<float*>(out));
  }
  void add(const QkvOp& o) {
    product({segment(o.q, o.q_bias, words(o.q_out)), segment(o.k, o.k_bias, words(o.k_out)),
             segment(o.v, o.v_bias, words(o.v_out))},
            o.in, o.norm, Epilogue::store, StepOut::words);
    for (const BufferId id : {o.q_out, o.k_out, o.v_out}) wrote(id, StepOut::words);
  }
  void add(const RopeAppendOp& o) {
    const auto* a = next_ ? std::get_if<AttentionOp>(&next_->body) : nullptr;
    const KvView& kv = in_.states[o.state];
    const std::uint32_t d = kv.head_dim_k, group = o.n_heads / kv.n_kv_heads;
    ok_ = ok_ && o.q_growth == 0 && a && a->state == o.state && a->q == o.q &&
          kv.type == static_cast<int>(DType::F16) && kv.head_dim_v == d &&
          (d == 64 || d == 128 || d == 256) && group <= 16;
    for (const BufferId id : {o.q, o.k, o.v})
      ok_ = ok_ && contents(id).as == StepOut::words && contents(id).op == contents(o.q).op;
    if (!ok_) return;
    StepAttention s{};
    s.q = words(o.q), s.k = words(o.k), s.v = words(o.v), s.out = words(a->out);
    s.qkv_op = contents(o.q).op;
    s.partials = pointer<std::uint64_t>(memory_ + space_.partials);
    s.q_norm = vector(o.q_norm.weight), s.k_norm = vector(o.k_norm.weight), s.sinks = vector(a->sinks);
    s.q_eps = o.q_norm.eps, s.k_eps = o.k_norm.eps;
    if (o.rope >= 0) {
      const RopeSpec& r = p_.ropes[o.rope];
      s.rope = {pointer<float>(in_.ropes[o.rope]), r.pairs == RopeSpec::Pairs::halves, r.n_rot};
    }
    s.kv = kv;
    s.n_heads = o.n_heads, s.group = group, s.window = a->window;
    s.scale = a->scale, s.softcap = a->softcap;
    s.most_parts = std::min(kStepParts, in_.gpu.sms / kv.n_kv_heads);
    ok_ = ok_ && s.most_parts != 0;
    if (!ok_) return;
    s.parts_reciprocal = 65536 / s.most_parts + 1;
    const std::uint32_t worker = group * (d + 4) * 4, most = kGemvWarps * 64 / d;
    while ((2u << s.worker_bits) <= most && (worker << (s.worker_bits + 1)) <= kMergeBytes) ++s.worker_bits;
    push(StepKind::attention).attention = s;
    wrote(a->out, StepOut::half_words);
    const std::uint32_t queries = 16 * d * 2, merge = std::max(worker << s.worker_bits, kGemvWarps * d * 4u);
    region_bytes_ = std::max(region_bytes_, queries + kStepOwnFloats(d) * 4 + merge);
  }
  void add(const AttentionOp&) {}  // with its RopeAppendOp
  void add(const ResidualLinearOp& o) {
    if (o.residual == kNoBuffer) return add_partial(o);
    const void* residual = place(o.residual);
    const Contents from = contents(o.residual);
    ok_ = ok_ && from.as != StepOut::half_words;
    void* out = o.post_norm ? branch() : words(o.out);
    StepLinear& s = product({segment(o.weight, o.bias, out)}, o.in, {},
                            o.post_norm ? Epilogue::store : Epilogue::residual, StepOut::words);
    s.linear.residual = static_cast<const float*>(residual);
    s.residual_op = from.op;
    if (o.post_norm)
      push(StepKind::add_norm).add = {
          branch(), vector(o.post_norm.weight), residual, words(o.out), o.post_norm.eps, width(o.out),
          from.op};
    wrote(o.out, StepOut::words);
  }
  // A rank's share of a product, with the sum over all of them.
  void add_partial(const ResidualLinearOp& o) {
    const auto* sum = next_ ? std::get_if<SumOp>(&next_->body) : nullptr;
    ok_ = ok_ && sum && sum->in == o.out && sum->residual != kNoBuffer && o.bias == kNoWeight &&
          in_.exchanges[sum->link].words;
    if (!ok_) return;
    const std::size_t before = ops_.size();
    add(ResidualLinearOp{.in = o.in,
                         .weight = o.weight,
                         .bias = sum->bias,
                         .post_norm = sum->post_norm,
                         .residual = sum->residual,
                         .out = sum->out});
    if (!ok_) return;
    const ExchangeArg& e = in_.exchanges[sum->link];
    const std::uint32_t stride = width(o.out);
    ops_[before].linear.sum = {e.words + sums_++ % 2 * e.writers * stride, e.rank, e.writers, stride};
  }
  void add(const GateUpOp& o) {
    ok_ = ok_ && p_.weights[o.gate].type == p_.weights[o.up].type && o.gate_bias == kNoWeight &&
          o.up_bias == kNoWeight;
    StepLinear& s = product({segment(o.gate, kNoWeight, words(o.out)), segment(o.up, kNoWeight, nullptr)},
                            o.in, o.norm, Epilogue::gate_up, StepOut::half_words);
    s.linear.gelu = o.activation == Activation::gelu_tanh;
    wrote(o.out, StepOut::half_words);
  }
  void add(const ExpertsOp&) { ok_ = false; }
  void add(const HeadOp& o) {
    ok_ = ok_ && o.scale == 1.0f;
    StepLinear& s = product({segment(o.weight, kNoWeight, pointer<void>(in_.buffers[o.logits]))}, o.in,
                            o.norm, Epilogue::store, StepOut::floats);
    s.linear.softcap = o.softcap;
    s.linear.outputs = 1;
    s.wanted = 1;
    s.normed = pointer<float>(in_.head_input);
  }

  // Shares the shared memory out; false: the GPU has too little.
  bool fit(StepKernel& kernel, CompileServices& services) {
    const std::uint32_t region = (std::max(region_bytes_, 1024u) + 127) / 128 * 128;
    const std::uint32_t fixed = kStepRegionOffset + region,
                        total = in_.gpu.shared_per_block - kStepStaticShared;
    if (!services.has_kernel(kKernel) || total < fixed) return false;
    const std::uint32_t ring = (total - fixed) / kGemvWarps / 128 * 128;
    if (ring < largest_unit_) return false;
    kernel.blocks_ = in_.gpu.sms;
    kernel.shared_bytes_ = ring * kGemvWarps + fixed;
    kernel.arg_ = {pointer<const StepOp>(memory_ + space_.ops),
                   static_cast<std::uint32_t>(ops_.size()),
                   ring,
                   region,
                   static_cast<std::uint32_t>((std::uint64_t{1} << 32) / kernel.blocks_ + 1),
                   in_.step};
    return services.blocks_per_sm(kKernel, kBlockThreads, kernel.shared_bytes_) >= 1;
  }

  const DeviceProgram& in_;
  const Program& p_;
  const DevicePtr memory_;
  const StepMemory space_;
  std::vector<StepOp> ops_;
  std::map<BufferId, Contents> written_;
  StepKernel::HandedOn handed_on_;
  const Op* next_ = nullptr;
  std::uint32_t largest_unit_ = 0, region_bytes_ = 0;
  std::uint32_t sums_ = 0;  // over ranks
  bool ok_ = true;
};

std::optional<StepKernel> StepKernel::make(const DeviceProgram& input, DevicePtr memory,
                                           CompileServices& services) {
  return StepWriter(input, memory).write(services);
}

void StepKernel::enqueue(Launcher& launcher) const {
  KernelLaunch l{kKernel};
  l.grid[0] = blocks_;
  l.block[0] = kBlockThreads;
  l.shared_bytes = shared_bytes_;
  l.cooperative = true;
  launcher(l, arg_);
  if (handed_on_.width == 0) return;
  KernelLaunch floats{"step_floats"};
  floats.grid[0] = ceil_div(handed_on_.width, 256);
  floats.block[0] = 256;
  launcher(floats, handed_on_.words, handed_on_.floats, handed_on_.width);
}

}  // namespace steelyard::cuda::hopper
