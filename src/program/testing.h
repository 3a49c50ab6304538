// Programs for tests and benchmarks without a file: whole models of any shape, every op in them. Tests only.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/dtype.h"
#include "program/program.h"

namespace steelyard::testing {

// The default's sizes are odd on purpose. Weights are named by what they are and their layer: "q.0",
// "ffn_norm.1".
struct Shape {
  std::uint32_t width = 96, n_heads = 4, n_kv_heads = 2, head_dim = 32, n_ff = 160, vocab = 75;
  std::uint32_t layers = 1;
  std::uint32_t n_rot = 32;
  RopeSpec::Pairs pairs = RopeSpec::Pairs::halves;
  bool qkv_bias = false, out_bias = false, ffn_bias = false, head_norms = false, post_norms = false,
       sinks = false, tied = false, rope_factors = false;
  std::uint32_t window = 0;
  float softcap = 0, final_softcap = 0, logit_scale = 1;
  float q_growth = 0;
  bool ramp = false;  // of the rope's frequencies
  Activation activation = Activation::silu;
  // A mixture instead of the one feed-forward: n_experts > 0.
  Routing routing = {};
  bool router_bias = false, choice_bias = false, expert_bias = false, shared_expert = false;
};

class TinyProgram {
 public:
  TinyProgram(const Shape& shape, DType type, DType kv_type) : s_(shape), type_(type) {
    p_.n_embd = s_.width;
    p_.vocab_size = s_.vocab;
    add_buffers();
    p_.groups.push_back({"group", s_.window});
    p_.ropes.push_back(
        {.pairs = s_.pairs, .n_rot = s_.n_rot, .base = 10000.0f, .freq_scale = 0.5f, .magnitude = 1.1f});
    if (s_.ramp) p_.ropes[0].ramp_begin = 2.5f, p_.ropes[0].ramp_end = 9;
    if (s_.rope_factors) p_.ropes[0].factors = vector("rope_factors", WeightRole::rope_factors, s_.n_rot / 2);
    const WeightId table =
        add({"table", s_.tied ? WeightRole::head : WeightRole::embedding, -1, type, s_.vocab, s_.width});
    op(EmbedOp{table, 1.5f, hidden_});
    for (layer_ = 0; layer_ < static_cast<int>(s_.layers); ++layer_) {
      p_.states.push_back(
          {static_cast<std::int16_t>(layer_), 0, kv_type, s_.n_kv_heads, s_.head_dim, s_.head_dim});
      attention(static_cast<StateId>(layer_));
      feed_forward();
    }
    layer_ = -1;
    op(HeadOp{.in = hidden_,
              .norm = norm("output_norm", s_.width),
              .weight = s_.tied ? table : matrix("head", WeightRole::head, s_.vocab, s_.width),
              .scale = s_.logit_scale,
              .softcap = s_.final_softcap,
              .logits = logits_});
    op(SampleOp{logits_});
    check(p_);
  }
  Program take() { return std::move(p_); }

 private:
  std::uint32_t q_width() const { return s_.n_heads * s_.head_dim; }
  std::uint32_t kv_width() const { return s_.n_kv_heads * s_.head_dim; }

  void add_buffers() {
    hidden_ = buffer("hidden", s_.width);
    q_ = buffer("q", q_width()), k_ = buffer("k", kv_width()), v_ = buffer("v", kv_width());
    attended_ = buffer("attended", q_width()), inner_ = buffer("inner", s_.n_ff);
    logits_ = buffer("logits", s_.vocab, RowSet::outputs);
  }

  void attention(StateId state) {
    QkvOp qkv{.in = hidden_,
              .norm = norm("attn_norm", s_.width),
              .q = matrix("q", WeightRole::qkv, q_width(), s_.width),
              .k = matrix("k", WeightRole::qkv, kv_width(), s_.width),
              .v = matrix("v", WeightRole::qkv, kv_width(), s_.width),
              .q_out = q_,
              .k_out = k_,
              .v_out = v_};
    if (s_.qkv_bias) {
      qkv.q_bias = vector("q_bias", WeightRole::bias, q_width());
      qkv.k_bias = vector("k_bias", WeightRole::bias, kv_width());
      qkv.v_bias = vector("v_bias", WeightRole::bias, kv_width());
    }
    op(qkv);
    RopeAppendOp rope{.q = q_, .k = k_, .v = v_, .n_heads = s_.n_heads, .rope = 0, .state = state};
    rope.q_growth = s_.q_growth, rope.q_growth_from = 7;
    if (s_.head_norms) rope.q_norm = norm("q_norm", s_.head_dim), rope.k_norm = norm("k_norm", s_.head_dim);
    op(rope);
    op(AttentionOp{.q = q_,
                   .out = attended_,
                   .n_heads = s_.n_heads,
                   .state = state,
                   .scale = 0.2f,
                   .window = s_.window,
                   .softcap = s_.softcap,
                   .sinks = s_.sinks ? vector("sinks", WeightRole::sinks, s_.n_heads) : kNoWeight});
    ResidualLinearOp out{.in = attended_,
                         .weight = matrix("out", WeightRole::attn_out, s_.width, q_width()),
                         .residual = hidden_,
                         .out = hidden_};
    if (s_.out_bias) out.bias = vector("out_bias", WeightRole::bias, s_.width);
    if (s_.post_norms) out.post_norm = norm("post_attn", s_.width);
    op(out);
  }

  // With a shared expert, or without a mixture, its gate and up come before what else writes the hidden
  // state.
  void feed_forward() {
    const bool mixture = s_.routing.n_experts > 0;
    if (!mixture || s_.shared_expert) gate_and_up();
    if (mixture) experts();
    if (!mixture || s_.shared_expert) down();
  }
  void experts() {
    const std::uint32_t n = s_.routing.n_experts, inner = kExpertWidth;
    ExpertsOp o{.in = hidden_,
                .norm = norm("experts_norm", s_.width),
                .routing = s_.routing,
                .router = add({"router", WeightRole::router, layer(), DType::F32, n, s_.width}),
                .gate = experts_of("expert_gate", inner, s_.width),
                .up = experts_of("expert_up", inner, s_.width),
                .down = experts_of("expert_down", s_.width, inner),
                .activation = s_.activation,
                .residual = hidden_,
                .out = hidden_};
    if (s_.router_bias) o.router_bias = vector("router_bias", WeightRole::bias, n);
    if (s_.choice_bias) o.choice_bias = vector("choice_bias", WeightRole::bias, n);
    if (s_.expert_bias) {
      o.gate_bias = expert_biases("expert_gate_bias", inner);
      o.up_bias = expert_biases("expert_up_bias", inner);
      o.down_bias = expert_biases("expert_down_bias", s_.width);
    }
    op(o);
  }
  WeightId experts_of(std::string name, std::uint32_t rows, std::uint32_t cols) {
    const std::uint32_t n = s_.routing.n_experts;
    return add({.name = std::move(name),
                .role = WeightRole::experts,
                .layer = layer(),
                .type = type_,
                .rows = n * rows,
                .cols = cols,
                .experts = n});
  }
  WeightId expert_biases(std::string name, std::uint32_t width) {
    const std::uint32_t n = s_.routing.n_experts;
    return add({.name = std::move(name),
                .role = WeightRole::experts,
                .layer = layer(),
                .type = DType::F32,
                .rows = 1,
                .cols = n * width,
                .experts = n});
  }
  std::int16_t layer() const { return static_cast<std::int16_t>(layer_); }

  void gate_and_up() {
    GateUpOp up{.in = hidden_,
                .norm = norm("ffn_norm", s_.width),
                .gate = matrix("gate", WeightRole::gate_up, s_.n_ff, s_.width),
                .up = matrix("up", WeightRole::gate_up, s_.n_ff, s_.width),
                .activation = s_.activation,
                .out = inner_};
    if (s_.ffn_bias) {
      up.gate_bias = vector("gate_bias", WeightRole::bias, s_.n_ff);
      up.up_bias = vector("up_bias", WeightRole::bias, s_.n_ff);
    }
    op(up);
  }
  void down() {
    ResidualLinearOp down{.in = inner_,
                          .weight = matrix("down", WeightRole::down, s_.width, s_.n_ff),
                          .residual = hidden_,
                          .out = hidden_};
    if (s_.ffn_bias) down.bias = vector("down_bias", WeightRole::bias, s_.width);
    if (s_.post_norms) down.post_norm = norm("post_ffw", s_.width);
    op(down);
  }

  static constexpr std::uint32_t kExpertWidth = 256;  // every type's blocks divide it

  BufferId buffer(std::string name, std::uint32_t width, RowSet rows = RowSet::all) {
    p_.buffers.push_back({std::move(name), width, rows});
    return static_cast<BufferId>(p_.buffers.size() - 1);
  }
  WeightId add(WeightSpec w) {
    if (layer_ >= 0) w.name += "." + std::to_string(layer_);
    p_.weights.push_back(std::move(w));
    return static_cast<WeightId>(p_.weights.size() - 1);
  }
  WeightId matrix(std::string name, WeightRole role, std::uint32_t rows, std::uint32_t cols) {
    return add({std::move(name), role, static_cast<std::int16_t>(layer_), type_, rows, cols});
  }
  WeightId vector(std::string name, WeightRole role, std::uint32_t n) {
    return add({std::move(name), role, static_cast<std::int16_t>(layer_), DType::F32, 1, n});
  }
  NormRef norm(std::string name, std::uint32_t n) {
    return {vector(std::move(name), WeightRole::norm, n), 1e-5f};
  }
  void op(OpBody body) { p_.ops.push_back({static_cast<std::int16_t>(layer_), body}); }

  const Shape s_;
  const DType type_;
  int layer_ = -1;
  BufferId hidden_ = 0, q_ = 0, k_ = 0, v_ = 0, attended_ = 0, inner_ = 0, logits_ = 0;
  Program p_;
};

// Matrices of `type`, states of `kv_type`.
inline Program tiny_program(const Shape& shape, DType type, DType kv_type) {
  return TinyProgram(shape, type, kv_type).take();
}

}  // namespace steelyard::testing
