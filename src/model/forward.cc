#include "model/forward.h"

#include <map>
#include <set>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

// Rows of a tensor that hold one weight, when several are fused into it.
struct Slice {
  const char* label = "";  // "[q]"
  std::uint32_t begin = 0;
  std::uint32_t total = 0;  // rows of the whole tensor; 0: the weight is the tensor
};

// What files hold beside the text model: RoPE factors for other contexts, the parts of models that see and
// hear, and drafts of further tokens.
bool is_known_leftover(std::string_view tensor) {
  for (const std::string_view start : {"rope_freqs.", "rope_factors_", "v.", "mm.", "a.", "resampler."})
    if (tensor.starts_with(start)) return true;
  return tensor.find(".nextn.") != std::string_view::npos || tensor.ends_with(".rotary_emb.inv_freq");
}

class Builder {
 public:
  Builder(const GgufFile& file, const ModelConfig& config, const ForwardOptions& options)
      : file_(file), config_(config), options_(options) {
    out_.program.n_embd = config.n_embd;
    out_.program.vocab_size = config.vocab_size;
  }

  BufferId buffer(std::string name, std::uint32_t width, RowSet rows = RowSet::all) {
    out_.program.buffers.push_back({std::move(name), width, rows});
    return static_cast<BufferId>(out_.program.buffers.size() - 1);
  }

  WeightId matrix(const std::string& tensor, WeightRole role, int layer, std::uint32_t rows,
                  std::uint32_t cols, Slice slice = {}) {
    const GgufTensor& t = find(tensor, rows, cols, slice);
    return add({.name = tensor + slice.label,
                .role = role,
                .layer = static_cast<std::int16_t>(layer),
                .type = t.type,
                .rows = rows,
                .cols = cols},
               {&t, slice.begin});
  }
  // Matrices of all experts, one behind another; or their biases.
  WeightId experts(const std::string& tensor, int layer, std::uint32_t rows, std::uint32_t cols) {
    const GgufTensor& t = find_experts(tensor, rows, cols);
    const std::uint32_t n = config_.routing.n_experts;
    return add({.name = tensor,
                .role = WeightRole::experts,
                .layer = static_cast<std::int16_t>(layer),
                .type = t.type,
                .rows = n * rows,
                .cols = cols,
                .experts = n},
               {&t, 0});
  }
  WeightId expert_biases_if(const std::string& tensor, int layer, std::uint32_t width) {
    if (!has(tensor)) return kNoWeight;
    const std::uint32_t n = config_.routing.n_experts;
    const GgufTensor& t = find(tensor, n, width, {});
    check_float(t);
    return add({.name = tensor,
                .role = WeightRole::experts,
                .layer = static_cast<std::int16_t>(layer),
                .type = t.type,
                .rows = 1,
                .cols = n * width,
                .experts = n},
               {&t, 0});
  }
  WeightId vector(const std::string& tensor, WeightRole role, int layer, std::uint32_t width) {
    const GgufTensor& t = find(tensor, 1, width, {});
    check_float(t);
    return add({.name = tensor,
                .role = role,
                .layer = static_cast<std::int16_t>(layer),
                .type = t.type,
                .rows = 1,
                .cols = width},
               {&t, 0});
  }
  WeightId vector_if(const std::string& tensor, WeightRole role, int layer, std::uint32_t width) {
    return file_.find_tensor(tensor) ? vector(tensor, role, layer, width) : kNoWeight;
  }
  NormRef norm(const std::string& tensor, int layer, std::uint32_t width) {
    return {vector(tensor, WeightRole::norm, layer, width), config_.norm_eps};
  }

  StateId state(int layer, const LayerConfig& l) {
    Program& p = out_.program;
    p.states.push_back({.layer = static_cast<std::int16_t>(layer),
                        .group = group(l.window),
                        .type = options_.kv_type,
                        .n_kv_heads = l.n_kv_heads,
                        .head_dim_k = config_.head_dim_k,
                        .head_dim_v = config_.head_dim_v});
    return static_cast<StateId>(p.states.size() - 1);
  }

  void op(int layer, OpBody body) { out_.program.ops.push_back({static_cast<std::int16_t>(layer), body}); }
  std::vector<RopeSpec>& ropes() { return out_.program.ropes; }
  bool has(const std::string& tensor) const { return file_.find_tensor(tensor) != nullptr; }

  Forward finish() {
    check(out_.program);
    check_leftovers();
    return std::move(out_);
  }

 private:
  // A tensor that no op reads means another model than the architecture's name says: its answers would be
  // fluent and wrong.
  void check_leftovers() const {
    std::set<const GgufTensor*> used;
    for (const WeightSource& source : out_.sources) used.insert(source.tensor);
    for (const GgufTensor& t : file_.tensors())
      if (!used.contains(&t) && !is_known_leftover(t.name) && !drafts(t.name))
        throw_error(
            ErrorKind::unsupported,
            "the {} model has the tensor {}, which isn't part of that architecture as Steelyard runs it: "
            "without it the answers would be wrong",
            readable(config_.architecture), readable(t.name));
  }

  // Of a layer behind the model's.
  bool drafts(std::string_view tensor) const {
    for (std::size_t i = 0; i < config_.draft_layers; ++i)
      if (tensor.starts_with(fmt::format("blk.{}.", config_.layers.size() + i))) return true;
    return false;
  }
  static void check_float(const GgufTensor& t) {
    if (t.type != DType::F32)
      throw_error(ErrorKind::unsupported,
                  "the tensor {} is {}, but Steelyard reads norms and biases as F32 only", t.name,
                  dtype_info(t.type).name);
  }
  const GgufTensor& find_experts(const std::string& name, std::uint32_t rows, std::uint32_t cols) const {
    const GgufTensor* t = file_.find_tensor(name);
    if (!t)
      throw_error(
          ErrorKind::bad_input,
          "the {} model lacks the tensor {} (files from before 2024-04 have a tensor for every expert: "
          "convert or fetch it again)",
          config_.architecture, name);
    const std::uint32_t n = config_.routing.n_experts;
    const bool fits =
        t->shape.columns() == cols && t->shape[1] == rows && t->shape[2] == n && t->shape[3] == 1;
    if (!fits)
      throw_error(ErrorKind::bad_input, "the tensor {} has shape {}, but the metadata asks for {} x {} x {}",
                  name, to_string(t->shape), cols, rows, n);
    return *t;
  }
  const GgufTensor& find(const std::string& name, std::uint32_t rows, std::uint32_t cols, Slice slice) const {
    const GgufTensor* t = file_.find_tensor(name);
    if (!t) throw_error(ErrorKind::bad_input, "the {} model lacks the tensor {}", config_.architecture, name);
    const std::uint32_t total = slice.total ? slice.total : rows;
    const bool fits = t->shape.columns() == cols && t->shape.rows() == total && t->shape.n_dims <= 2;
    if (!fits)
      throw_error(ErrorKind::bad_input, "the tensor {} has shape {}, but the metadata asks for {} x {}", name,
                  to_string(t->shape), cols, total);
    return *t;
  }
  WeightId add(WeightSpec spec, WeightSource source) {
    out_.program.weights.push_back(std::move(spec));
    out_.sources.push_back(source);
    return static_cast<WeightId>(out_.program.weights.size() - 1);
  }
  std::int16_t group(std::uint32_t window) {
    // A window that the context never fills keeps every page, as full attention does.
    if (window >= options_.context) window = 0;
    const auto [it, added] = groups_.try_emplace(window, static_cast<std::int16_t>(groups_.size()));
    if (added)
      out_.program.groups.push_back(
          {window ? fmt::format("window {}", window) : std::string("full"), window});
    return it->second;
  }

  const GgufFile& file_;
  const ModelConfig& config_;
  const ForwardOptions& options_;
  Forward out_;
  std::map<std::uint32_t, std::int16_t> groups_;
};

struct Buffers {
  BufferId hidden, q, k, v, attended, inner, shared, logits;
};

Buffers make_buffers(Builder& b, const ModelConfig& c) {
  std::uint32_t heads = 0, kv_heads = 0, n_ff = 0;
  for (const auto& l : c.layers) {
    if (heads && (l.n_heads != heads || l.n_kv_heads != kv_heads || l.n_ff != n_ff))
      throw_error(ErrorKind::unsupported, "layers of different widths aren't supported yet");
    heads = l.n_heads, kv_heads = l.n_kv_heads, n_ff = l.n_ff;
  }
  return {.hidden = b.buffer("hidden", c.n_embd),
          .q = b.buffer("q", heads * c.head_dim_k),
          .k = b.buffer("k", kv_heads * c.head_dim_k),
          .v = b.buffer("v", kv_heads * c.head_dim_v),
          .attended = b.buffer("attended", heads * c.head_dim_v),
          .inner = c.routing.n_experts && !c.dense_layers ? kNoBuffer : b.buffer("inner", n_ff),
          .shared = c.n_ff_shared ? b.buffer("shared", c.n_ff_shared) : kNoBuffer,
          .logits = b.buffer("logits", c.vocab_size, RowSet::outputs)};
}

// Llama 3.1+ keeps one set of factors in the file; phi3 two, chosen by the context.
void add_ropes(Builder& b, const ModelConfig& c, const ForwardOptions& options) {
  for (RopeSpec rope : c.ropes) {
    const std::uint32_t half = rope.n_rot / 2;
    const bool is_long = c.rope_original_context > 0 && options.context > c.rope_original_context;
    const bool first = b.ropes().empty();
    if (first && b.has("rope_freqs.weight"))
      rope.factors = b.vector("rope_freqs.weight", WeightRole::rope_factors, -1, half);
    else if (first && is_long && b.has("rope_factors_long.weight"))
      rope.factors = b.vector("rope_factors_long.weight", WeightRole::rope_factors, -1, half);
    else if (first && !is_long && b.has("rope_factors_short.weight"))
      rope.factors = b.vector("rope_factors_short.weight", WeightRole::rope_factors, -1, half);
    b.ropes().push_back(rope);
  }
}

QkvOp qkv_op(Builder& b, const ModelConfig& c, const LayerConfig& l, int i, const Buffers& bufs) {
  const std::string p = fmt::format("blk.{}.", i);
  const std::uint32_t nq = l.n_heads * c.head_dim_k, nk = l.n_kv_heads * c.head_dim_k,
                      nv = l.n_kv_heads * c.head_dim_v;
  const std::uint32_t total = nq + nk + nv;
  QkvOp op{.in = bufs.hidden,
           .norm = b.norm(p + "attn_norm.weight", i, c.n_embd),
           .q_out = bufs.q,
           .k_out = bufs.k,
           .v_out = bufs.v};
  constexpr auto role = WeightRole::qkv;
  if (c.fused_qkv && b.has(p + "attn_qkv.weight")) {
    op.q = b.matrix(p + "attn_qkv.weight", role, i, nq, c.n_embd, {"[q]", 0, total});
    op.k = b.matrix(p + "attn_qkv.weight", role, i, nk, c.n_embd, {"[k]", nq, total});
    op.v = b.matrix(p + "attn_qkv.weight", role, i, nv, c.n_embd, {"[v]", nq + nk, total});
  } else {
    op.q = b.matrix(p + "attn_q.weight", role, i, nq, c.n_embd);
    op.k = b.matrix(p + "attn_k.weight", role, i, nk, c.n_embd);
    op.v = b.matrix(p + "attn_v.weight", role, i, nv, c.n_embd);
  }
  const auto bias = [&](const std::string& name, std::uint32_t width) {
    return c.qkv_bias ? b.vector(p + name, WeightRole::bias, i, width)
                      : b.vector_if(p + name, WeightRole::bias, i, width);
  };
  op.q_bias = bias("attn_q.bias", nq);
  op.k_bias = bias("attn_k.bias", nk);
  op.v_bias = bias("attn_v.bias", nv);
  return op;
}

void attention_block(Builder& b, const ModelConfig& c, const ForwardOptions& options, int i,
                     const Buffers& bufs) {
  const LayerConfig& l = c.layers[i];
  const std::string p = fmt::format("blk.{}.", i);
  const StateId state = b.state(i, l);
  b.op(i, qkv_op(b, c, l, i, bufs));
  RopeAppendOp rope{
      .q = bufs.q, .k = bufs.k, .v = bufs.v, .n_heads = l.n_heads, .rope = l.rope, .state = state};
  // Within the original context it is 1.
  if (options.context > c.q_growth_from) rope.q_growth = c.q_growth, rope.q_growth_from = c.q_growth_from;
  if (c.qk_norm) {
    rope.q_norm = b.norm(p + "attn_q_norm.weight", i, c.head_dim_k);
    rope.k_norm = b.norm(p + "attn_k_norm.weight", i, c.head_dim_k);
  }
  b.op(i, rope);
  b.op(i, AttentionOp{.q = bufs.q,
                      .out = bufs.attended,
                      .n_heads = l.n_heads,
                      .state = state,
                      .scale = c.attention_scale,
                      .window = l.window,
                      .softcap = c.attention_softcap,
                      .sinks = c.sinks ? b.vector(p + "attn_sinks.weight", WeightRole::sinks, i, l.n_heads)
                                       : kNoWeight});
  ResidualLinearOp out{.in = bufs.attended, .residual = bufs.hidden, .out = bufs.hidden};
  out.weight =
      b.matrix(p + "attn_output.weight", WeightRole::attn_out, i, c.n_embd, l.n_heads * c.head_dim_v);
  out.bias = b.vector_if(p + "attn_output.bias", WeightRole::bias, i, c.n_embd);
  if (c.post_norms) out.post_norm = b.norm(p + "post_attention_norm.weight", i, c.n_embd);
  b.op(i, out);
}

// gpt-oss and GLM-4.5 name it after its place.
NormRef ffn_norm(Builder& b, const ModelConfig& c, int i) {
  const std::string p = fmt::format("blk.{}.", i);
  const char* name = b.has(p + "ffn_norm.weight") ? "ffn_norm.weight" : "post_attention_norm.weight";
  return b.norm(p + name, i, c.n_embd);
}

void feed_forward_block(Builder& b, const ModelConfig& c, int i, const Buffers& bufs) {
  const std::uint32_t n_ff = c.layers[i].n_ff;
  const std::string p = fmt::format("blk.{}.", i);
  GateUpOp up{.in = bufs.hidden, .norm = ffn_norm(b, c, i), .activation = c.activation, .out = bufs.inner};
  if (c.fused_gate_up && !b.has(p + "ffn_gate.weight")) {
    up.gate = b.matrix(p + "ffn_up.weight", WeightRole::gate_up, i, n_ff, c.n_embd, {"[gate]", 0, 2 * n_ff});
    up.up = b.matrix(p + "ffn_up.weight", WeightRole::gate_up, i, n_ff, c.n_embd, {"[up]", n_ff, 2 * n_ff});
  } else {
    up.gate = b.matrix(p + "ffn_gate.weight", WeightRole::gate_up, i, n_ff, c.n_embd);
    up.up = b.matrix(p + "ffn_up.weight", WeightRole::gate_up, i, n_ff, c.n_embd);
  }
  // Granite Code and Bielik have these under the architecture llama.
  up.gate_bias = b.vector_if(p + "ffn_gate.bias", WeightRole::bias, i, n_ff);
  up.up_bias = b.vector_if(p + "ffn_up.bias", WeightRole::bias, i, n_ff);
  b.op(i, up);
  ResidualLinearOp down{.in = bufs.inner, .residual = bufs.hidden, .out = bufs.hidden};
  down.weight = b.matrix(p + "ffn_down.weight", WeightRole::down, i, c.n_embd, n_ff);
  down.bias = b.vector_if(p + "ffn_down.bias", WeightRole::bias, i, c.n_embd);
  if (c.post_norms) down.post_norm = b.norm(p + "post_ffw_norm.weight", i, c.n_embd);
  b.op(i, down);
}

// Gate and up of what every token uses, before the chosen experts add to their input.
void shared_gate_up(Builder& b, const ModelConfig& c, int i, const Buffers& bufs, const NormRef& norm) {
  const std::string p = fmt::format("blk.{}.", i);
  b.op(i, GateUpOp{
              .in = bufs.hidden,
              .norm = norm,
              .gate = b.matrix(p + "ffn_gate_shexp.weight", WeightRole::gate_up, i, c.n_ff_shared, c.n_embd),
              .up = b.matrix(p + "ffn_up_shexp.weight", WeightRole::gate_up, i, c.n_ff_shared, c.n_embd),
              .activation = c.activation,
              .out = bufs.shared});
}
void shared_down(Builder& b, const ModelConfig& c, int i, const Buffers& bufs) {
  const std::string name = fmt::format("blk.{}.ffn_down_shexp.weight", i);
  b.op(i, ResidualLinearOp{.in = bufs.shared,
                           .weight = b.matrix(name, WeightRole::down, i, c.n_embd, c.n_ff_shared),
                           .residual = bufs.hidden,
                           .out = bufs.hidden});
}

void experts_block(Builder& b, const ModelConfig& c, int i, const Buffers& bufs) {
  const std::string p = fmt::format("blk.{}.", i);
  const std::uint32_t n = c.routing.n_experts, n_ff = c.n_ff_expert;
  const NormRef norm = ffn_norm(b, c, i);
  if (c.n_ff_shared) shared_gate_up(b, c, i, bufs, norm);
  b.op(i, ExpertsOp{.in = bufs.hidden,
                    .norm = norm,
                    .routing = c.routing,
                    .router = b.matrix(p + "ffn_gate_inp.weight", WeightRole::router, i, n, c.n_embd),
                    .router_bias = b.vector_if(p + "ffn_gate_inp.bias", WeightRole::bias, i, n),
                    .choice_bias = b.vector_if(p + "exp_probs_b.bias", WeightRole::bias, i, n),
                    .gate = b.experts(p + "ffn_gate_exps.weight", i, n_ff, c.n_embd),
                    .up = b.experts(p + "ffn_up_exps.weight", i, n_ff, c.n_embd),
                    .down = b.experts(p + "ffn_down_exps.weight", i, c.n_embd, n_ff),
                    .gate_bias = b.expert_biases_if(p + "ffn_gate_exps.bias", i, n_ff),
                    .up_bias = b.expert_biases_if(p + "ffn_up_exps.bias", i, n_ff),
                    .down_bias = b.expert_biases_if(p + "ffn_down_exps.bias", i, c.n_embd),
                    .activation = c.activation,
                    .residual = bufs.hidden,
                    .out = bufs.hidden});
  if (c.n_ff_shared) shared_down(b, c, i, bufs);
}

}  // namespace

Forward write_forward(const GgufFile& file, const ModelConfig& config, const ForwardOptions& options) {
  Builder b(file, config, options);
  const Buffers bufs = make_buffers(b, config);
  add_ropes(b, config, options);

  const WeightRole table_role = config.tied_embedding ? WeightRole::head : WeightRole::embedding;
  const WeightId table = b.matrix("token_embd.weight", table_role, -1, config.vocab_size, config.n_embd);
  b.op(-1, EmbedOp{.table = table, .scale = config.embedding_scale, .out = bufs.hidden});
  for (int i = 0; i < static_cast<int>(config.layers.size()); ++i) {
    attention_block(b, config, options, i, bufs);
    if (config.routing.n_experts > 0 && i >= static_cast<int>(config.dense_layers))
      experts_block(b, config, i, bufs);
    else
      feed_forward_block(b, config, i, bufs);
  }
  HeadOp head{.in = bufs.hidden,
              .norm = b.norm("output_norm.weight", -1, config.n_embd),
              .scale = config.logit_scale,
              .softcap = config.final_softcap,
              .logits = bufs.logits};
  head.weight = config.tied_embedding
                    ? table
                    : b.matrix("output.weight", WeightRole::head, -1, config.vocab_size, config.n_embd);
  b.op(-1, head);
  b.op(-1, SampleOp{.logits = bufs.logits});
  return b.finish();
}

std::vector<Forward> in_parts(const Forward& whole, std::span<const Share> shares) {
  std::map<std::string_view, WeightSource> sources;  // weights keep their names
  for (std::size_t i = 0; i < whole.sources.size(); ++i)
    sources.emplace(whole.program.weights[i].name, whole.sources[i]);
  std::vector<Forward> parts;
  for (Program& program : part_programs(whole.program, shares)) {
    Forward& part = parts.emplace_back(Forward{std::move(program), {}});
    for (const WeightSpec& w : part.program.weights) {
      WeightSource& source = part.sources.emplace_back(sources.at(w.name));
      source.row_begin += w.first_row, source.col_begin += w.first_col;
    }
  }
  return parts;
}

std::uint64_t weight_begin(const WeightSpec& spec, const WeightSource& source) {
  return weight_stride(source) * source.row_begin + row_bytes(spec.type, source.col_begin);
}

std::uint64_t weight_stride(const WeightSource& source) {
  return row_bytes(source.tensor->type, source.tensor->shape.columns());
}

std::span<const std::byte> weight_bytes(const GgufFile& file, const WeightSpec& spec,
                                        const WeightSource& source) {
  const std::uint64_t bytes = weight_stride(source) * (spec.rows - 1) + row_bytes(spec.type, spec.cols);
  return file.data(*source.tensor).subspan(weight_begin(spec, source), bytes);
}

}  // namespace steelyard
