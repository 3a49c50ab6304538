#include "program/share.h"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "program/uses.h"

namespace steelyard {
namespace {

// Pieces of `unit` that a rank gets of `total`: what doesn't divide goes to the first ranks.
std::uint32_t piece(std::uint32_t total, std::uint32_t unit, const Share& share) {
  const std::uint32_t units = total / unit;
  return (units / share.ranks + (share.rank < units % share.ranks ? 1 : 0)) * unit;
}
// Where it begins.
std::uint32_t piece_begin(std::uint32_t total, std::uint32_t unit, const Share& share) {
  const std::uint32_t units = total / unit;
  return (units / share.ranks * share.rank + std::min(share.rank, units % share.ranks)) * unit;
}

// No block of a type is cut: super-blocks have 256 weights, blocks 32.
std::uint32_t feed_forward_unit(std::uint32_t n_ff) {
  return n_ff % 256 == 0 ? 256 : n_ff % 32 == 0 ? 32 : 1;
}
// Kernels take matrices by groups of 16 rows.
std::uint32_t vocabulary_unit(std::uint32_t vocab) { return vocab % 16 == 0 ? 16 : 1; }

std::uint32_t kv_heads_of_rank(std::uint32_t kv_heads, std::uint32_t ranks) {
  return std::max(kv_heads / ranks, 1u);
}

std::uint32_t first_kv_head(std::uint32_t kv_heads, const Share& share) {
  return kv_heads * share.rank / share.ranks;
}

// Makes widths a rank's, and says where its pieces of the weights begin. An op writes the same widths
// whatever op came before, so that doing it for every layer does no harm.
class Divider {
 public:
  Divider(const Program& whole, Program& part, const Share& share)
      : whole_(whole), part_(part), share_(share), begins_(whole.buffers.size(), 0) {}

  void operator()(const EmbedOp& o) { table(o.table); }
  void operator()(const QkvOp& o) {
    const std::uint32_t q = whole_.buffers[o.q_out].width / share_.ranks;
    rows(o.q, o.q_bias, o.q_out, q, q * share_.rank);
    rows(o.k, o.k_bias, o.k_out, kv_width(o.k_out), kv_begin(o.k_out));
    rows(o.v, o.v_bias, o.v_out, kv_width(o.v_out), kv_begin(o.v_out));
  }
  void operator()(RopeAppendOp& o) {
    o.n_heads /= share_.ranks;
    part_.states[o.state].n_kv_heads = kv_heads_of_rank(whole_.states[o.state].n_kv_heads, share_.ranks);
  }
  void operator()(AttentionOp& o) {
    o.n_heads /= share_.ranks;
    const std::uint32_t width = whole_.buffers[o.out].width / share_.ranks;
    part_.buffers[o.out].width = width;
    begins_[o.out] = width * share_.rank;
    if (o.sinks == kNoWeight) return;
    part_.weights[o.sinks].cols = o.n_heads;
    part_.weights[o.sinks].first_col = o.n_heads * share_.rank;
  }
  void operator()(const ResidualLinearOp& o) {
    part_.weights[o.weight].cols = part_.buffers[o.in].width;
    part_.weights[o.weight].first_col = begins_[o.in];
  }
  void operator()(const GateUpOp& o) {
    const std::uint32_t n_ff = whole_.buffers[o.out].width;
    const std::uint32_t width = piece(n_ff, feed_forward_unit(n_ff), share_);
    const std::uint32_t begin = piece_begin(n_ff, feed_forward_unit(n_ff), share_);
    rows(o.gate, o.gate_bias, o.out, width, begin);
    rows(o.up, o.up_bias, o.out, width, begin);
    begins_[o.out] = begin;
  }
  void operator()(const ExpertsOp&) {}  // why_not_ranks() refuses it
  void operator()(const HeadOp& o) {
    table(o.weight);
    part_.buffers[o.logits].width = vocabulary();
  }
  void operator()(const SampleOp&) {}
  void operator()(const ReceiveOp&) {}
  void operator()(const SendOp&) {}
  void operator()(const SumOp&) {}
  void operator()(const GatherOp&) {}

  std::uint32_t vocabulary() const {
    return piece(whole_.vocab_size, vocabulary_unit(whole_.vocab_size), share_);
  }

 private:
  void table(WeightId id) {
    part_.weights[id].rows = vocabulary();
    part_.weights[id].first_row = piece_begin(whole_.vocab_size, vocabulary_unit(whole_.vocab_size), share_);
  }
  void rows(WeightId weight, WeightId bias, BufferId out, std::uint32_t width, std::uint32_t begin) {
    part_.weights[weight].rows = width;
    part_.weights[weight].first_row = begin;
    if (bias != kNoWeight) part_.weights[bias].cols = width, part_.weights[bias].first_col = begin;
    part_.buffers[out].width = width;
  }
  // Of keys or values: as many heads as the first state's.
  std::uint32_t kv_width(BufferId buffer) const {
    const std::uint32_t heads = whole_.states.front().n_kv_heads;
    return whole_.buffers[buffer].width / heads * kv_heads_of_rank(heads, share_.ranks);
  }
  std::uint32_t kv_begin(BufferId buffer) const {
    const std::uint32_t heads = whole_.states.front().n_kv_heads;
    return whole_.buffers[buffer].width / heads * first_kv_head(heads, share_);
  }

  const Program& whole_;
  Program& part_;
  const Share& share_;
  std::vector<std::uint32_t> begins_;  // by BufferId: this rank's first element of the whole row
};

// Old number → new number of the things that a part keeps; -1: not kept.
struct Renumbering {
  std::vector<int> weights, buffers, states;
};

// Calls of every id that an op names, by reference.
template <typename W, typename B, typename S>
void each_id(OpBody& body, W w, B b, S s) {
  std::visit(Overloaded{
                 [&](EmbedOp& o) { w(o.table), b(o.out); },
                 [&](QkvOp& o) {
                   for (WeightId* id : {&o.norm.weight, &o.q, &o.k, &o.v, &o.q_bias, &o.k_bias, &o.v_bias})
                     w(*id);
                   for (BufferId* id : {&o.in, &o.q_out, &o.k_out, &o.v_out}) b(*id);
                 },
                 [&](RopeAppendOp& o) {
                   w(o.q_norm.weight), w(o.k_norm.weight), b(o.q), b(o.k), b(o.v), s(o.state);
                 },
                 [&](AttentionOp& o) { w(o.sinks), b(o.q), b(o.out), s(o.state); },
                 [&](ResidualLinearOp& o) {
                   w(o.weight), w(o.bias), w(o.post_norm.weight), b(o.in), b(o.residual), b(o.out);
                 },
                 [&](GateUpOp& o) {
                   for (WeightId* id : {&o.norm.weight, &o.gate, &o.up, &o.gate_bias, &o.up_bias}) w(*id);
                   b(o.in), b(o.out);
                 },
                 [&](ExpertsOp& o) {
                   for (WeightId* id : {&o.norm.weight, &o.router, &o.router_bias, &o.choice_bias, &o.gate,
                                        &o.up, &o.down, &o.gate_bias, &o.up_bias, &o.down_bias})
                     w(*id);
                   b(o.in), b(o.residual), b(o.out);
                 },
                 [&](HeadOp& o) { w(o.norm.weight), w(o.weight), b(o.in), b(o.logits); },
                 [&](SampleOp& o) { b(o.logits); },
                 [&](ReceiveOp& o) { b(o.out); },
                 [&](SendOp& o) { b(o.in); },
                 [&](SumOp& o) { w(o.bias), w(o.post_norm.weight), b(o.in), b(o.residual), b(o.out); },
                 [&](GatherOp& o) { b(o.in), b(o.out); },
             },
             body);
}

// Gives what is marked (0) numbers in order, and returns the kept things.
template <typename T>
std::vector<T> keep(std::vector<T> all, std::vector<int>& numbers) {
  std::vector<T> kept;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (numbers[i] < 0) continue;
    numbers[i] = static_cast<int>(kept.size());
    kept.push_back(std::move(all[i]));
  }
  return kept;
}

void mark(const Program& program, std::vector<Op>& ops, Renumbering& kept) {
  const auto marker = [](std::vector<int>& numbers) {
    return [&numbers](auto id) {
      if (id >= 0) numbers[id] = 0;
    };
  };
  for (Op& op : ops) {
    each_id(op.body, marker(kept.weights), marker(kept.buffers), marker(kept.states));
    const auto* rope = std::get_if<RopeAppendOp>(&op.body);
    if (rope && rope->rope >= 0) marker(kept.weights)(program.ropes[rope->rope].factors);
  }
}

// A table that no op of the part multiplies with is only looked up.
void name_roles(Program& part) {
  for (WeightSpec& w : part.weights)
    if (w.role == WeightRole::head) w.role = WeightRole::embedding;
  for (const Op& op : part.ops)
    if (const auto* head = std::get_if<HeadOp>(&op.body)) part.weights[head->weight].role = WeightRole::head;
}

// The program without what no op uses.
void drop_unused(Program& part) {
  Renumbering kept{std::vector<int>(part.weights.size(), -1), std::vector<int>(part.buffers.size(), -1),
                   std::vector<int>(part.states.size(), -1)};
  mark(part, part.ops, kept);
  part.weights = keep(std::move(part.weights), kept.weights);
  part.buffers = keep(std::move(part.buffers), kept.buffers);
  part.states = keep(std::move(part.states), kept.states);
  const auto renumber = [](const std::vector<int>& numbers) {
    return [&numbers](auto& id) {
      if (id >= 0) id = static_cast<std::remove_reference_t<decltype(id)>>(numbers[id]);
    };
  };
  for (Op& op : part.ops)
    each_id(op.body, renumber(kept.weights), renumber(kept.buffers), renumber(kept.states));
  for (RopeSpec& rope : part.ropes)
    if (rope.factors >= 0) rope.factors = kept.weights[rope.factors];
}

// Columns that a rank would have of every matrix must be whole blocks of its type.
std::string cut_block(const Program& program, std::uint32_t ranks) {
  Program part = program;
  const Share share{.begin = 0, .end = unit_count(program), .rank = ranks - 1, .ranks = ranks};
  Divider divider(program, part, share);
  for (Op& op : part.ops) std::visit(divider, op.body);
  for (const WeightSpec& w : part.weights)
    if (w.cols == 0 || w.rows == 0 || w.cols % dtype_info(w.type).block != 0)
      return fmt::format("{} would be cut within a block of {}", w.name, dtype_info(w.type).name);
  return {};
}

}  // namespace

std::uint32_t layer_count(const Program& program) {
  int last = -1;
  for (const Op& op : program.ops) last = std::max<int>(last, op.layer);
  return static_cast<std::uint32_t>(last + 1);
}

std::uint32_t unit_count(const Program& program) { return layer_count(program) + 2; }

std::uint32_t unit_of(const Op& op, std::uint32_t layers) {
  switch (role(op)) {
    case OpRole::input:
      return 0;
    case OpRole::layer:
      return static_cast<std::uint32_t>(op.layer + 1);
    case OpRole::logits:
    case OpRole::sample:
    case OpRole::link:  // of a part, which isn't cut again
      break;
  }
  return layers + 1;
}

Program part_of(const Program& program, const Share& share) {
  Program part = program;
  const std::uint32_t layers = layer_count(program);
  std::erase_if(part.ops, [&](const Op& op) {
    const std::uint32_t unit = unit_of(op, layers);
    return unit < share.begin || unit >= share.end;
  });
  if (share.ranks > 1) {
    Divider divider(program, part, share);
    for (Op& op : part.ops) std::visit(divider, op.body);
    part.vocab_size = divider.vocabulary();
  }
  drop_unused(part);
  name_roles(part);
  return part;
}

namespace {

// The links at which a stage takes part.
struct StageLinks {
  LinkId from = kNoLink, to = kNoLink, sum = kNoLink, logits = kNoLink;
};

BufferId add_buffer(Program& part, std::string name, std::uint32_t width, RowSet rows) {
  part.buffers.push_back({std::move(name), width, rows});
  return static_cast<BufferId>(part.buffers.size() - 1);
}

// Makes a rank's ops end in sums, and its logits go to the rank that samples.
class RankJoiner {
 public:
  RankJoiner(Program& part, const StageLinks& links) : part_(part), links_(links) {}

  void run() {
    partial_ = add_buffer(part_, "partial", part_.n_embd, RowSet::all);
    std::vector<Op> ops = std::move(part_.ops);
    part_.ops.clear();
    for (Op& op : ops) std::visit([&](auto& o) { join(op, o); }, op.body);
  }
  std::uint32_t sums() const { return sums_; }

 private:
  template <typename T>
  void join(const Op& op, T&) {
    part_.ops.push_back(op);
  }
  void join(const Op& op, EmbedOp& o) {
    const SumOp sum{.in = partial_, .out = o.out, .link = links_.sum, .turn = sums_++};
    o.out = partial_;
    part_.ops.push_back(op);
    part_.ops.push_back({-1, sum});
  }
  void join(const Op& op, ResidualLinearOp& o) {
    const SumOp sum{.in = partial_,
                    .bias = o.bias,
                    .post_norm = o.post_norm,
                    .residual = o.residual,
                    .out = o.out,
                    .link = links_.sum,
                    .turn = sums_++};
    o = {.in = o.in, .weight = o.weight, .residual = kNoBuffer, .out = partial_};
    part_.ops.push_back(op);
    part_.ops.push_back({op.layer, sum});
  }
  void join(const Op& op, HeadOp& o) {
    part_.ops.push_back(op);
    GatherOp gather{.in = o.logits, .first_col = part_.weights[o.weight].first_row, .link = links_.logits};
    if (samples_here())
      gather.out = all_ = add_buffer(part_, "all logits", part_.vocab_size, RowSet::outputs);
    part_.ops.push_back({-1, gather});
  }
  void join(const Op& op, SampleOp& o) {
    if (!samples_here()) return;
    o.logits = all_;
    part_.ops.push_back(op);
  }
  bool samples_here() const { return part_.rank + 1 == part_.ranks; }

  Program& part_;
  const StageLinks& links_;
  BufferId partial_ = kNoBuffer, all_ = kNoBuffer;
  std::uint32_t sums_ = 0;
};

// All links of a model, and of each stage those that are its own.
std::vector<LinkSpec> lay_links(const Program& program, std::span<const Share> shares,
                                std::vector<StageLinks>& stages) {
  std::vector<LinkSpec> links;
  const auto add = [&](const char* what, const Share& s, std::uint32_t width, LinkSpec::Kind kind,
                       std::uint32_t writers) {
    links.push_back({fmt::format("{} units {}-{}", what, s.begin, s.end - 1), width, kind, writers});
    return static_cast<LinkId>(links.size() - 1);
  };
  LinkId before = kNoLink;
  for (const Share& s : shares) {
    if (s.rank > 0) continue;
    StageLinks& own = stages.emplace_back();
    own.from = before;
    if (s.ranks > 1) own.sum = add("sums of", s, program.n_embd, LinkSpec::Kind::sum, s.ranks);
    const bool last = s.end == unit_count(program);
    if (s.ranks > 1 && last)
      own.logits = add("logits of", s, program.vocab_size, LinkSpec::Kind::logits, s.ranks);
    if (!last) own.to = before = add("rows of", s, program.n_embd, LinkSpec::Kind::rows, 1);
  }
  return links;
}

// Every rank receives; the last one sends.
void join_stages(Program& part, const StageLinks& own) {
  if (own.from != kNoLink) {
    BufferId first = kNoBuffer;
    for (const Op& op : part.ops)
      if (const auto in = reads(op); first == kNoBuffer && !in.empty()) first = in[0];
    part.ops.insert(part.ops.begin(), {-1, ReceiveOp{own.from, first}});
  }
  if (own.to != kNoLink && part.rank + 1 == part.ranks)
    part.ops.push_back({-1, SendOp{writes(part.ops.back())[0], own.to}});
}

}  // namespace

std::vector<Program> part_programs(const Program& program, std::span<const Share> shares) {
  std::vector<StageLinks> stages;
  std::vector<LinkSpec> links = lay_links(program, shares, stages);
  std::vector<Program> parts;
  std::size_t next_stage = 0;
  for (const Share& share : shares) {
    if (const std::string why = why_not_ranks(program, share.ranks); !why.empty())
      throw_error(ErrorKind::bad_input, "the model can't be divided over {} devices: {}", share.ranks, why);
    if (share.rank == 0) ++next_stage;
    const StageLinks& own = stages[next_stage - 1];
    Program& part = parts.emplace_back(part_of(program, share));
    part.rank = share.rank, part.ranks = share.ranks;
    part.vocab_size = program.vocab_size;
    if (share.ranks > 1) {
      RankJoiner joiner(part, own);
      joiner.run();
      links[own.sum].uses = joiner.sums();
    }
    join_stages(part, own);
  }
  for (Program& part : parts) {
    part.links = links;
    check(part);
  }
  return parts;
}

std::string why_not_ranks(const Program& program, std::uint32_t ranks) {
  if (ranks < 2) return {};
  for (const Op& op : program.ops) {
    if (std::holds_alternative<ExpertsOp>(op.body))
      return "it has experts, which tensor ranks can't share yet (layers over several devices can be)";
    const auto a = attends(op);
    if (!a) continue;
    const std::uint32_t kv = program.states[a->state].n_kv_heads;
    if (a->n_heads % ranks != 0) return fmt::format("{} heads don't divide by {}", a->n_heads, ranks);
    if (kv % ranks != 0 && ranks % kv != 0) return fmt::format("{} KV heads don't divide by {}", kv, ranks);
  }
  return cut_block(program, ranks);
}

}  // namespace steelyard
