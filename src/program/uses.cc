#include "program/uses.h"

#include <algorithm>

namespace steelyard {
namespace {

using Weights = Few<UsedWeight>;

// The vectors that are there.
Weights vectors(std::initializer_list<WeightId> ids) {
  Weights weights{};
  for (const WeightId id : ids)
    if (id != kNoWeight) weights.push({id, WeightUse::vector});
  return weights;
}

// The buffers that are there.
Few<BufferId> there(std::initializer_list<BufferId> ids) {
  Few<BufferId> buffers{};
  for (const BufferId id : ids)
    if (id != kNoBuffer) buffers.push(id);
  return buffers;
}

Weights experts_weights(const ExpertsOp& o) {
  Weights weights{};
  for (const WeightId id : {o.gate, o.up, o.down, o.gate_bias, o.up_bias, o.down_bias})
    if (id != kNoWeight) weights.push({id, WeightUse::experts, o.routing.n_used});
  for (const UsedWeight& used : vectors({o.norm.weight, o.router_bias, o.choice_bias})) weights.push(used);
  return weights;
}

// What the op doesn't multiply with every row.
Weights other_weights(const Op& op) {
  return std::visit(Overloaded{
                        [](const EmbedOp& o) {
                          return Weights{{o.table, WeightUse::lookup}};
                        },
                        [](const QkvOp& o) {
                          return vectors({o.norm.weight, o.q_bias, o.k_bias, o.v_bias});
                        },
                        [](const RopeAppendOp& o) {
                          return vectors({o.q_norm.weight, o.k_norm.weight});
                        },
                        [](const AttentionOp& o) { return vectors({o.sinks}); },
                        [](const ResidualLinearOp& o) {
                          return vectors({o.bias, o.post_norm.weight});
                        },
                        [](const GateUpOp& o) {
                          return vectors({o.norm.weight, o.gate_bias, o.up_bias});
                        },
                        [](const ExpertsOp& o) { return experts_weights(o); },
                        [](const HeadOp& o) { return vectors({o.norm.weight}); },
                        [](const SampleOp&) { return Weights{}; },
                        [](const ReceiveOp&) { return Weights{}; },
                        [](const SendOp&) { return Weights{}; },
                        [](const SumOp& o) {
                          return vectors({o.bias, o.post_norm.weight});
                        },
                        [](const GatherOp&) { return Weights{}; },
                    },
                    op.body);
}

}  // namespace

Few<UsedWeight> weights_of(const Op& op) {
  Weights weights{};
  for (const WeightId id : products(op).weights) weights.push({id, WeightUse::product});
  for (const UsedWeight& used : other_weights(op)) weights.push(used);
  return weights;
}

Products products(const Op& op) {
  constexpr RowSet kAll = RowSet::all, kOutputs = RowSet::outputs;
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return Products{{}}; },
                        [](const QkvOp& o) {
                          return Products{{o.q, o.k, o.v}, o.in, kAll};
                        },
                        [](const RopeAppendOp&) { return Products{{}}; },
                        [](const AttentionOp&) { return Products{{}}; },
                        [](const ResidualLinearOp& o) {
                          return Products{{o.weight}, o.in, kAll};
                        },
                        [](const GateUpOp& o) {
                          return Products{{o.gate, o.up}, o.in, kAll};
                        },
                        [](const ExpertsOp& o) {
                          return Products{{o.router}, o.in, kAll};
                        },
                        [](const HeadOp& o) {
                          return Products{{o.weight}, o.in, kOutputs};
                        },
                        [](const SampleOp&) { return Products{{}}; },
                        [](const ReceiveOp&) { return Products{{}}; },
                        [](const SendOp&) { return Products{{}}; },
                        [](const SumOp&) { return Products{{}}; },
                        [](const GatherOp&) { return Products{{}}; },
                    },
                    op.body);
}

Few<BufferId> writes(const Op& op) {
  using Ids = Few<BufferId>;
  return std::visit(Overloaded{
                        [](const EmbedOp& o) { return Ids{o.out}; },
                        [](const QkvOp& o) {
                          return Ids{o.q_out, o.k_out, o.v_out};
                        },
                        [](const RopeAppendOp& o) { return Ids{o.q}; },
                        [](const AttentionOp& o) { return Ids{o.out}; },
                        [](const ResidualLinearOp& o) { return Ids{o.out}; },
                        [](const GateUpOp& o) { return Ids{o.out}; },
                        [](const ExpertsOp& o) { return Ids{o.out}; },
                        [](const HeadOp& o) { return Ids{o.logits}; },
                        [](const SampleOp&) { return Ids{}; },
                        [](const ReceiveOp& o) { return Ids{o.out}; },
                        [](const SendOp&) { return Ids{}; },
                        [](const SumOp& o) { return Ids{o.out}; },
                        [](const GatherOp& o) { return there({o.out}); },
                    },
                    op.body);
}

Few<BufferId> reads(const Op& op) {
  using Ids = Few<BufferId>;
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return Ids{}; },
                        [](const QkvOp& o) { return Ids{o.in}; },
                        [](const RopeAppendOp& o) {
                          return Ids{o.q, o.k, o.v};
                        },
                        [](const AttentionOp& o) { return Ids{o.q}; },
                        [](const ResidualLinearOp& o) {
                          return there({o.in, o.residual});
                        },
                        [](const GateUpOp& o) { return Ids{o.in}; },
                        [](const ExpertsOp& o) {
                          return there({o.in, o.residual});
                        },
                        [](const HeadOp& o) { return Ids{o.in}; },
                        [](const SampleOp& o) { return Ids{o.logits}; },
                        [](const ReceiveOp&) { return Ids{}; },
                        [](const SendOp& o) { return Ids{o.in}; },
                        [](const SumOp& o) {
                          return there({o.in, o.residual});
                        },
                        [](const GatherOp& o) { return Ids{o.in}; },
                    },
                    op.body);
}

std::optional<StateId> appends_to(const Op& op) {
  using Maybe = std::optional<StateId>;
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return Maybe(); },
                        [](const QkvOp&) { return Maybe(); },
                        [](const RopeAppendOp& o) { return Maybe(o.state); },
                        [](const AttentionOp&) { return Maybe(); },
                        [](const ResidualLinearOp&) { return Maybe(); },
                        [](const GateUpOp&) { return Maybe(); },
                        [](const ExpertsOp&) { return Maybe(); },
                        [](const HeadOp&) { return Maybe(); },
                        [](const SampleOp&) { return Maybe(); },
                        [](const ReceiveOp&) { return Maybe(); },
                        [](const SendOp&) { return Maybe(); },
                        [](const SumOp&) { return Maybe(); },
                        [](const GatherOp&) { return Maybe(); },
                    },
                    op.body);
}

std::optional<Attends> attends(const Op& op) {
  using Maybe = std::optional<Attends>;
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return Maybe(); },
                        [](const QkvOp&) { return Maybe(); },
                        [](const RopeAppendOp&) { return Maybe(); },
                        [](const AttentionOp& o) {
                          return Maybe({o.state, o.n_heads, o.window});
                        },
                        [](const ResidualLinearOp&) { return Maybe(); },
                        [](const GateUpOp&) { return Maybe(); },
                        [](const ExpertsOp&) { return Maybe(); },
                        [](const HeadOp&) { return Maybe(); },
                        [](const SampleOp&) { return Maybe(); },
                        [](const ReceiveOp&) { return Maybe(); },
                        [](const SendOp&) { return Maybe(); },
                        [](const SumOp&) { return Maybe(); },
                        [](const GatherOp&) { return Maybe(); },
                    },
                    op.body);
}

std::optional<UsedLink> link_of(const Op& op) {
  using Maybe = std::optional<UsedLink>;
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return Maybe(); },
                        [](const QkvOp&) { return Maybe(); },
                        [](const RopeAppendOp&) { return Maybe(); },
                        [](const AttentionOp&) { return Maybe(); },
                        [](const ResidualLinearOp&) { return Maybe(); },
                        [](const GateUpOp&) { return Maybe(); },
                        [](const ExpertsOp&) { return Maybe(); },
                        [](const HeadOp&) { return Maybe(); },
                        [](const SampleOp&) { return Maybe(); },
                        [](const ReceiveOp& o) {
                          return Maybe({o.link, o.out, false});
                        },
                        [](const SendOp& o) {
                          return Maybe({o.link, o.in, true});
                        },
                        [](const SumOp&) { return Maybe(); },
                        [](const GatherOp&) { return Maybe(); },
                    },
                    op.body);
}

LinkId exchange_of(const Op& op) {
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return kNoLink; },
                        [](const QkvOp&) { return kNoLink; },
                        [](const RopeAppendOp&) { return kNoLink; },
                        [](const AttentionOp&) { return kNoLink; },
                        [](const ResidualLinearOp&) { return kNoLink; },
                        [](const GateUpOp&) { return kNoLink; },
                        [](const ExpertsOp&) { return kNoLink; },
                        [](const HeadOp&) { return kNoLink; },
                        [](const SampleOp&) { return kNoLink; },
                        [](const ReceiveOp&) { return kNoLink; },
                        [](const SendOp&) { return kNoLink; },
                        [](const SumOp& o) { return o.link; },
                        [](const GatherOp& o) { return o.link; },
                    },
                    op.body);
}

OpRole role(const Op& op) {
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return OpRole::input; },
                        [](const QkvOp&) { return OpRole::layer; },
                        [](const RopeAppendOp&) { return OpRole::layer; },
                        [](const AttentionOp&) { return OpRole::layer; },
                        [](const ResidualLinearOp&) { return OpRole::layer; },
                        [](const GateUpOp&) { return OpRole::layer; },
                        [](const ExpertsOp&) { return OpRole::layer; },
                        [](const HeadOp&) { return OpRole::logits; },
                        [](const SampleOp&) { return OpRole::sample; },
                        [](const ReceiveOp&) { return OpRole::link; },
                        [](const SendOp&) { return OpRole::link; },
                        [](const SumOp&) { return OpRole::link; },
                        [](const GatherOp&) { return OpRole::link; },
                    },
                    op.body);
}

std::optional<UsedLink> link_end(const Program& program, bool sends) {
  for (const Op& op : program.ops)
    if (const auto l = link_of(op); l && l->sends == sends) return l;
  return std::nullopt;
}

bool reads_tokens(const Program& program) {
  return samples(program) || std::any_of(program.ops.begin(), program.ops.end(),
                                         [](const Op& op) { return role(op) == OpRole::input; });
}

bool samples(const Program& program) {
  return std::any_of(program.ops.begin(), program.ops.end(),
                     [](const Op& op) { return role(op) == OpRole::sample; });
}

BufferId logits_of(const Program& program) {
  BufferId logits = kNoBuffer;
  for (const Op& op : program.ops) {
    if (role(op) == OpRole::logits) logits = writes(op)[0];
    if (const auto* gather = std::get_if<GatherOp>(&op.body)) logits = gather->out;
  }
  return logits;
}

}  // namespace steelyard
