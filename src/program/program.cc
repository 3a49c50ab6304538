#include "program/program.h"

#include <set>
#include <string_view>

#include "base/error.h"
#include "program/uses.h"

namespace steelyard {
namespace {

// Checks one op: first that what it names is there, then that the shapes fit. `where` names it in the
// message.
class OpChecker {
 public:
  OpChecker(const Program& program, std::string where) : program_(program), where_(std::move(where)) {}

  void run(const Op& op) {
    for (const auto& ids : {reads(op), writes(op)})
      for (const BufferId id : ids) require(exists(id, program_.buffers), "names a buffer that isn't there");
    for (const UsedWeight& used : weights_of(op))
      require(exists(used.id, program_.weights), "names a weight that isn't there");
    if (const auto state = appends_to(op))
      require(exists(*state, program_.states), "names a state that isn't there");
    if (const auto l = link_of(op)) require(exists(l->link, program_.links), "names a link that isn't there");
    if (const LinkId link = exchange_of(op); link != kNoLink)
      require(exists(link, program_.links), "names a link that isn't there");
    if (const auto a = attends(op))
      require(exists(a->state, program_.states), "names a state that isn't there");
    std::visit(*this, op.body);
  }

  void operator()(const EmbedOp& op) {
    vocabulary(op.table, program_.n_embd);
    buffer(op.out, program_.n_embd);
  }
  void operator()(const QkvOp& op) {
    const std::uint32_t width = buffer(op.in);
    norm(op.norm, width);
    projection(op.q, op.q_bias, op.q_out, width);
    projection(op.k, op.k_bias, op.k_out, width);
    projection(op.v, op.v_bias, op.v_out, width);
  }
  void operator()(const RopeAppendOp& op) {
    const StateSpec& s = state(op.state);
    require(op.n_heads > 0, "has no heads");
    buffer(op.q, op.n_heads * s.head_dim_k);
    buffer(op.k, s.n_kv_heads * s.head_dim_k);
    buffer(op.v, s.n_kv_heads * s.head_dim_v);
    norm(op.q_norm, s.head_dim_k);
    norm(op.k_norm, s.head_dim_k);
    require(op.q_growth_from > 0, "has a temperature of no context");
    require(op.rope >= -1 && op.rope < static_cast<int>(program_.ropes.size()),
            "names a rope that isn't there");
    if (op.rope >= 0)
      require(program_.ropes[op.rope].n_rot <= s.head_dim_k, "rotates more than a head holds");
  }
  void operator()(const AttentionOp& op) {
    const StateSpec& s = state(op.state);
    require(op.n_heads > 0 && op.n_heads % s.n_kv_heads == 0, "has heads that its KV heads don't divide");
    buffer(op.q, op.n_heads * s.head_dim_k);
    buffer(op.out, op.n_heads * s.head_dim_v);
    if (op.sinks != kNoWeight) vector(op.sinks, op.n_heads);
  }
  void operator()(const ResidualLinearOp& op) {
    projection(op.weight, op.bias, op.out, buffer(op.in));
    norm(op.post_norm, buffer(op.out));
    if (op.residual == kNoBuffer) return require(!op.post_norm, "norms what is no whole sum");
    buffer(op.residual, buffer(op.out));
  }
  void operator()(const GateUpOp& op) {
    const std::uint32_t width = buffer(op.in);
    norm(op.norm, width);
    projection(op.gate, op.gate_bias, op.out, width);
    projection(op.up, op.up_bias, op.out, width);
    require(op.activation != Activation::clamped_swiglu, "has an activation that only experts have");
  }
  void operator()(const ExpertsOp& op) {
    const std::uint32_t width = buffer(op.in), n = op.routing.n_experts;
    norm(op.norm, width);
    routing(op.routing);
    matrix(op.router, n, width);
    for (const WeightId bias : {op.router_bias, op.choice_bias})
      if (bias != kNoWeight) vector(bias, n);
    const std::uint32_t inner = weight(op.gate).rows / n;
    experts(op.gate, op.gate_bias, n, inner, width);
    experts(op.up, op.up_bias, n, inner, width);
    experts(op.down, op.down_bias, n, buffer(op.out), inner);
    buffer(op.residual, buffer(op.out));
    require(program_.ranks == 1, "has experts, which ranks can't share");
  }
  void operator()(const HeadOp& op) {
    const std::uint32_t width = buffer(op.in);
    norm(op.norm, width);
    vocabulary(op.weight, width);
    buffer(op.logits, weight(op.weight).rows);
    require(program_.buffers[op.logits].rows == RowSet::outputs, "writes logits for rows that want none");
  }
  void operator()(const SampleOp& op) { buffer(op.logits, program_.vocab_size); }
  void operator()(const ReceiveOp& op) { link(op.link, op.out); }
  void operator()(const SendOp& op) { link(op.link, op.in); }
  void operator()(const SumOp& op) {
    link(op.link, op.in);
    exchange(op.link, LinkSpec::Kind::sum);
    require(op.turn < program_.links[op.link].uses, "sums more often than its link says");
    const std::uint32_t width = buffer(op.in);
    buffer(op.out, width);
    if (op.residual != kNoBuffer) buffer(op.residual, width);
    if (op.bias != kNoWeight) vector(op.bias, width);
    norm(op.post_norm, width);
  }
  void operator()(const GatherOp& op) {
    exchange(op.link, LinkSpec::Kind::logits);
    require(op.first_col + buffer(op.in) <= program_.vocab_size, "has more logits than there are tokens");
    require(program_.links[op.link].width == program_.vocab_size, "gathers into rows of another width");
    if (op.out != kNoBuffer) buffer(op.out, program_.vocab_size);
  }

 private:
  void require(bool ok, std::string_view what) {
    if (!ok) throw_error(ErrorKind::internal, "program: {} {}", where_, what);
  }
  template <typename T>
  static bool exists(std::int64_t id, const std::vector<T>& all) {
    return id >= 0 && id < static_cast<std::int64_t>(all.size());
  }
  std::uint32_t buffer(BufferId id) const { return program_.buffers[id].width; }
  void buffer(BufferId id, std::uint32_t width) {
    require(buffer(id) == width, "has a buffer of the wrong width");
  }
  const WeightSpec& weight(WeightId id) const { return program_.weights[id]; }
  void matrix(WeightId id, std::uint32_t rows, std::uint32_t cols) {
    const WeightSpec& w = weight(id);
    require(w.rows == rows && w.cols == cols, "has a weight of the wrong shape");
  }
  void vector(WeightId id, std::uint32_t width) {
    matrix(id, 1, width);
    require(weight(id).type == DType::F32, "has a vector that isn't F32");
  }
  void norm(const NormRef& norm, std::uint32_t width) {
    if (norm) vector(norm.weight, width);
  }
  void projection(WeightId w, WeightId bias, BufferId out, std::uint32_t in_width) {
    matrix(w, buffer(out), in_width);
    if (bias != kNoWeight) vector(bias, buffer(out));
  }
  void routing(const Routing& r) {
    require(r.n_experts > 0 && r.n_experts <= kMostExperts && r.n_used > 0 && r.n_used <= r.n_experts &&
                r.n_used <= kMostUsedExperts,
            "has too few or too many experts");
    require(r.n_groups > 0 && r.n_experts % r.n_groups == 0 && r.n_groups_used > 0 &&
                r.n_groups_used <= r.n_groups && r.n_used <= r.n_experts / r.n_groups * r.n_groups_used,
            "has groups that its experts don't divide into");
  }
  void experts(WeightId w, WeightId bias, std::uint32_t n, std::uint32_t rows, std::uint32_t cols) {
    matrix(w, n * rows, cols);
    require(weight(w).experts == n && rows % kExpertRowUnit == 0, "has experts of the wrong shape");
    if (bias == kNoWeight) return;
    vector(bias, n * rows);
    require(weight(bias).experts == n, "has biases of other experts");
  }
  // A table of all tokens, or a rank's piece of it.
  void vocabulary(WeightId id, std::uint32_t cols) {
    const WeightSpec& w = weight(id);
    const bool whole = w.rows == program_.vocab_size;
    require(w.cols == cols && (whole || w.first_row + w.rows <= program_.vocab_size),
            "has a table of the wrong shape");
  }
  void exchange(LinkId id, LinkSpec::Kind kind) {
    const LinkSpec& l = program_.links[id];
    require(l.kind == kind && l.writers == program_.ranks && program_.rank < program_.ranks,
            "exchanges by a link that isn't its ranks'");
  }
  void link(LinkId id, BufferId rows) {
    buffer(rows, program_.links[id].width);
    require(program_.buffers[rows].rows == RowSet::all, "hands on rows that aren't all of the step's");
  }
  const StateSpec& state(StateId id) const { return program_.states[id]; }

  const Program& program_;
  std::string where_;
};

}  // namespace

const char* op_name(const Op& op) {
  return std::visit(
      Overloaded{[](const EmbedOp&) { return "embed"; }, [](const QkvOp&) { return "qkv"; },
                 [](const RopeAppendOp&) { return "rope_append"; },
                 [](const AttentionOp&) { return "attention"; },
                 [](const ResidualLinearOp&) { return "residual_linear"; },
                 [](const GateUpOp&) { return "gate_up"; }, [](const ExpertsOp&) { return "experts"; },
                 [](const HeadOp&) { return "head"; }, [](const SampleOp&) { return "sample"; },
                 [](const ReceiveOp&) { return "receive"; }, [](const SendOp&) { return "send"; },
                 [](const SumOp&) { return "sum"; }, [](const GatherOp&) { return "gather"; }},
      op.body);
}

void check(const Program& program) {
  if (program.n_embd == 0 || program.vocab_size == 0)
    throw_error(ErrorKind::internal, "program: its width or vocabulary is 0");
  std::set<std::string_view> names;
  for (const auto& w : program.weights)
    if (!names.insert(w.name).second)
      throw_error(ErrorKind::internal, "program: two weights are named {}", w.name);
  for (const auto& s : program.states)
    if (s.group < 0 || s.group >= static_cast<int>(program.groups.size()) || s.n_kv_heads == 0)
      throw_error(ErrorKind::internal, "program: the state of layer {} names no group or no heads", s.layer);
  for (std::size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    OpChecker(program, fmt::format("op {} ({}, layer {})", i, op_name(op), op.layer)).run(op);
  }
}

}  // namespace steelyard
