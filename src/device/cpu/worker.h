// How each op is computed on the CPU: one thread's part. Internal to the executable.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/split_range.h"
#include "base/thread_pool.h"
#include "device/cpu/executable.h"
#include "device/cpu/kernels.h"
#include "device/cpu/sampler.h"
#include "device/cpu/workspace.h"
#include "device/step.h"
#include "program/program.h"
#include "quant/quant.h"

namespace steelyard::cpu {

constexpr std::uint32_t kRowTile = 32;  // prefill rows that share the keys they read

inline Range scaled(Range r, std::uint32_t unit, std::uint32_t limit) {
  return {std::min(r.begin * unit, limit), std::min(r.end * unit, limit)};
}
inline std::uint32_t groups_of(std::uint32_t rows, std::uint32_t unit) { return (rows + unit - 1) / unit; }

// One thread's walk through the step. operator() per op; the caller puts a barrier after each.
struct CpuExecutable::Worker {
  const CpuExecutable& x;
  ThreadPool& pool;
  const Kernels& k;
  unsigned thread, n_threads;
  std::size_t op_index = 0;

  std::uint32_t n_rows() const { return static_cast<std::uint32_t>(x.block_.tokens.size()); }
  std::uint32_t n_outputs() const { return static_cast<std::uint32_t>(x.block_.outputs.size()); }
  Range my_rows(std::uint32_t n) const { return split_range(n, thread, n_threads); }
  std::byte* at(std::uint64_t offset) const { return x.base_ + offset; }

  // ---- step start: angles, history
  void prepare() {
    const Range rows = my_rows(n_rows());
    for (std::size_t i = 0; i < x.program_.ropes.size(); ++i) {
      const RopeSpec& rope = x.program_.ropes[i];
      const auto* inv_freq = reinterpret_cast<const double*>(at(x.space_.inv_freq_of_rope[i]));
      for (std::uint32_t r = rows.begin; r < rows.end; ++r)
        rope_angles(x.block_.positions[r], inv_freq, rope.n_rot / 2, rope.magnitude, cos_sin(i, r));
    }
  }
  float* cos_sin(std::size_t rope, std::uint32_t row) const {
    return reinterpret_cast<float*>(at(x.space_.cos_sin_of_rope[rope])) +
           std::uint64_t{row} * x.program_.ropes[rope].n_rot;
  }

  // ---- inputs of products
  // Row `source[i]` (or i) of a float buffer, normed and quantised, as activations row i. Ends with a barrier
  // unless every thread made its own copy.
  ActView input(const float* rows, std::uint64_t stride, std::uint32_t n, std::uint32_t cols,
                const NormRef& norm, ActFormat format) {
    const bool own = n <= kPrivateRows;
    const ActView view{
        format, cols,
        own ? at(x.space_.private_input + thread * x.space_.private_input_stride) : at(x.space_.input)};
    const Range mine = own ? Range{0, n} : my_rows(n);
    for (std::uint32_t i = mine.begin; i < mine.end; ++i)
      k.rms_norm_quantize(rows + i * stride, x.vector(norm.weight), norm ? norm.eps : -1.0f, view, i);
    if (!own) pool.barrier();
    return view;
  }

  // ---- ops
  void operator()(const EmbedOp& op) {
    const WeightSpec& table = x.program_.weights[op.table];
    const Range rows = my_rows(n_rows());
    for (std::uint32_t r = rows.begin; r < rows.end; ++r) {
      const std::int32_t token = x.token_of_row(r) - static_cast<std::int32_t>(table.first_row);
      float* out = x.floats(op.out) + std::uint64_t{r} * table.cols;
      if (token < 0 || static_cast<std::uint32_t>(token) >= table.rows) {  // another rank's
        std::fill_n(out, table.cols, 0.0f);
        continue;
      }
      if (table.role == WeightRole::embedding)
        dequantize(table.type, x.bindings_.weights[op.table] + token * row_bytes(table.type, table.cols),
                   table.cols, out);
      else
        dequantize_row(x.matrix(op.table), token, out);
      if (op.scale != 1.0f) k.scale(op.scale, table.cols, out);
    }
  }

  void operator()(const QkvOp& op) {
    const std::uint32_t cols = x.program_.buffers[op.in].width;
    const ActFormat format = input_format(x.program_, x.mode_, {op.q, op.k, op.v});
    const ActView in = input(x.floats(op.in), cols, n_rows(), cols, op.norm, format);
    struct Part {
      WeightId weight, bias;
      BufferId out;
    };
    const Part parts[] = {
        {op.q, op.q_bias, op.q_out}, {op.k, op.k_bias, op.k_out}, {op.v, op.v_bias, op.v_out}};
    std::uint32_t total = 0;
    for (const auto& p : parts) total += groups_of(x.matrix(p.weight).rows, kRowGroup);
    const Range mine = split_range(total, thread, n_threads);
    std::uint32_t first = 0;  // group number of the part's first group
    for (const auto& p : parts) {
      const PackedMatrix w = x.matrix(p.weight);
      const std::uint32_t groups = groups_of(w.rows, kRowGroup);
      const std::uint32_t begin = std::clamp(mine.begin, first, first + groups) - first;
      const std::uint32_t end = std::clamp(mine.end, first, first + groups) - first;
      const Range out = scaled({begin, end}, kRowGroup, w.rows);
      first += groups;
      if (out.begin < out.end)
        k.matmul({.w = w,
                  .x = in,
                  .n_rows = n_rows(),
                  .y = x.floats(p.out),
                  .y_stride = w.rows,
                  .bias = x.vector(p.bias),
                  .out_begin = out.begin,
                  .out_end = out.end});
    }
  }

  void operator()(const RopeAppendOp& op) {
    const StateSpec& s = x.program_.states[op.state];
    // Few rows: threads share the heads; many: the rows. Units are (row, KV head).
    const std::uint32_t per_kv = op.n_heads / s.n_kv_heads;
    const Range units = split_range(n_rows() * s.n_kv_heads, thread, n_threads);
    for (std::uint32_t u = units.begin; u < units.end; ++u)
      rope_append(op, s, u / s.n_kv_heads, u % s.n_kv_heads, per_kv);
  }
  void rope_append(const RopeAppendOp& op, const StateSpec& s, std::uint32_t row, std::uint32_t head,
                   std::uint32_t per_kv) {
    const std::uint32_t dk = s.head_dim_k;
    float* q = x.floats(op.q) + (std::uint64_t{row} * op.n_heads + head * per_kv) * dk;
    float* keys = x.floats(op.k) + std::uint64_t{row} * s.n_kv_heads * dk;
    const float* values = x.floats(op.v) + std::uint64_t{row} * s.n_kv_heads * s.head_dim_v;
    const auto norm = [&](const NormRef& n, float* v) { k.rms_norm(v, x.vector(n.weight), n.eps, dk, v); };
    if (op.q_norm)
      for (std::uint32_t h = 0; h < per_kv; ++h) norm(op.q_norm, q + h * dk);
    if (op.k_norm) norm(op.k_norm, keys + head * dk);
    if (op.rope >= 0) {
      const RopeSpec& rope = x.program_.ropes[op.rope];
      const auto rotate = rope.pairs == RopeSpec::Pairs::halves ? k.rope_halves : k.rope_adjacent;
      rotate(q, per_kv, dk, rope.n_rot, cos_sin(op.rope, row));
      rotate(keys + head * dk, 1, dk, rope.n_rot, cos_sin(op.rope, row));
    }
    if (op.q_growth != 0) {
      const auto steps =
          static_cast<float>(x.block_.positions[row] / static_cast<std::int32_t>(op.q_growth_from));
      k.scale(1.0f + op.q_growth * std::log1p(steps), per_kv * dk, q);
    }
    k.append_kv(x.kv_layout(s), x.kv_pages(op.state, x.block_.row_sequence[row]), x.block_.positions[row],
                keys, values, head, head + 1);
  }

  AttentionArgs attention_args(const AttentionOp& op, std::uint32_t sequence) const {
    const StateSpec& s = x.program_.states[op.state];
    const StepSequence& seq = x.block_.sequences[sequence];
    const std::uint64_t stride = std::uint64_t{op.n_heads} * s.head_dim_k;
    return {.layout = x.kv_layout(s),
            .pages = x.kv_pages(op.state, sequence),
            .n_heads = op.n_heads,
            .q = x.floats(op.q) + seq.first_row * stride,
            .q_stride = stride,
            .scale = op.scale,
            .softcap = op.softcap,
            .window = op.window,
            .sinks = x.vector(op.sinks)};
  }
  std::byte* scratch() const {
    return at(x.space_.attention_scratch + thread * x.space_.attention_scratch_stride);
  }
  std::uint32_t next_task() const { return x.next_task_[op_index].fetch_add(1, std::memory_order_relaxed); }

  void operator()(const AttentionOp& op) {
    if (n_rows() <= x.space_.split_rows)
      split_attention(op);
    else
      tiled_attention(op);
  }
  // Tasks are (sequence, tile of its rows, KV head), handed out as threads get free: late tiles see more
  // keys.
  void tiled_attention(const AttentionOp& op) {
    const StateSpec& s = x.program_.states[op.state];
    const std::uint64_t out_stride = std::uint64_t{op.n_heads} * s.head_dim_v;
    std::uint32_t task = next_task(), first = 0;
    for (std::uint32_t i = 0; i < x.block_.sequences.size(); ++i) {
      const StepSequence& seq = x.block_.sequences[i];
      const std::uint32_t tasks = groups_of(seq.n_rows, kRowTile) * s.n_kv_heads;
      const AttentionArgs args = attention_args(op, i);
      for (; task < first + tasks; task = next_task()) {
        const std::uint32_t tile = (task - first) / s.n_kv_heads, head = (task - first) % s.n_kv_heads;
        const std::uint32_t begin = tile * kRowTile, end = std::min(begin + kRowTile, seq.n_rows);
        k.attention(args, head, begin, end, seq.first_position, x.floats(op.out) + seq.first_row * out_stride,
                    out_stride, scratch());
      }
      first += tasks;
    }
  }
  // Few rows: tasks are (row, KV head, chunk of the context); a second pass merges the chunks.
  void split_attention(const AttentionOp& op) {
    const StateSpec& s = x.program_.states[op.state];
    const std::uint32_t per_kv = op.n_heads / s.n_kv_heads, size = partial_floats(s.head_dim_v);
    const std::uint32_t max_chunks = groups_of(x.limits_.context, kChunkTokens);
    auto* partials = reinterpret_cast<float*>(at(x.space_.partials));
    // [row][KV head][chunk][heads of the group]
    const auto partial = [&](std::uint32_t row, std::uint32_t head, std::uint32_t chunk) {
      return partials + ((std::uint64_t{row} * s.n_kv_heads + head) * max_chunks + chunk) * per_kv * size;
    };
    std::uint32_t task = next_task(), first = 0;
    for (std::uint32_t row = 0; row < n_rows(); ++row) {
      const std::int32_t position = x.block_.positions[row];
      const std::uint32_t chunk0 = first_chunk(position, op.window), chunks = end_chunk(position) - chunk0;
      const std::uint32_t sequence = x.block_.row_sequence[row];
      const std::uint32_t row_in_sequence = row - x.block_.sequences[sequence].first_row;
      for (; task < first + chunks * s.n_kv_heads; task = next_task()) {
        const std::uint32_t head = (task - first) / chunks, chunk = (task - first) % chunks;
        k.attention_chunk(attention_args(op, sequence), head, row_in_sequence, position, chunk0 + chunk,
                          partial(row, head, chunk));
      }
      first += chunks * s.n_kv_heads;
    }
    pool.barrier();
    const Range units = split_range(n_rows() * op.n_heads, thread, n_threads);
    for (std::uint32_t u = units.begin; u < units.end; ++u) {
      const std::uint32_t row = u / op.n_heads, head = u % op.n_heads;
      const std::int32_t position = x.block_.positions[row];
      const float* sink = op.sinks == kNoWeight ? nullptr : x.vector(op.sinks) + head;
      k.attention_merge(partial(row, head / per_kv, 0) + (head % per_kv) * size, std::uint64_t{per_kv} * size,
                        end_chunk(position) - first_chunk(position, op.window), s.head_dim_v, sink,
                        x.floats(op.out) + std::uint64_t{u} * s.head_dim_v);
    }
  }

  void operator()(const ResidualLinearOp& op) {
    const std::uint32_t cols = x.program_.buffers[op.in].width;
    const PackedMatrix w = x.matrix(op.weight);
    const ActView in = x.space_.buffer_is_act[op.in] ? x.act_buffer(op.in)
                                                     : input(x.floats(op.in), cols, n_rows(), cols, {},
                                                             input_format(x.program_, x.mode_, {op.weight}));
    const Range out = scaled(split_range(groups_of(w.rows, kRowGroup), thread, n_threads), kRowGroup, w.rows);
    float* y = op.post_norm ? reinterpret_cast<float*>(at(x.space_.branch)) : x.floats(op.out);
    MatmulArgs args{.w = w,
                    .x = in,
                    .n_rows = n_rows(),
                    .y = y,
                    .y_stride = w.rows,
                    .bias = x.vector(op.bias),
                    .out_begin = out.begin,
                    .out_end = out.end};
    if (!op.post_norm && op.residual != kNoBuffer)
      args.residual = x.floats(op.residual), args.residual_stride = w.rows;
    if (out.begin < out.end) k.matmul(args);
    if (op.post_norm) add_normed(op, y, w.rows);
  }
  void add_normed(const ResidualLinearOp& op, float* branch, std::uint32_t width) {
    pool.barrier();
    const Range rows = my_rows(n_rows());
    for (std::uint32_t r = rows.begin; r < rows.end; ++r) {
      float* b = branch + std::uint64_t{r} * width;
      const float* residual = x.floats(op.residual) + std::uint64_t{r} * width;
      float* out = x.floats(op.out) + std::uint64_t{r} * width;
      k.rms_norm(b, x.vector(op.post_norm.weight), op.post_norm.eps, width, b);
      if (out != residual) std::copy_n(residual, width, out);
      k.add(b, width, out);
    }
  }

  void operator()(const GateUpOp& op) {
    const std::uint32_t cols = x.program_.buffers[op.in].width;
    const ActFormat format = input_format(x.program_, x.mode_, {op.gate, op.up});
    const ActView in = input(x.floats(op.in), cols, n_rows(), cols, op.norm, format);
    const PackedMatrix gate = x.matrix(op.gate), up = x.matrix(op.up);
    const Range out =
        scaled(split_range(groups_of(gate.rows, kActBlock), thread, n_threads), kActBlock, gate.rows);
    if (out.begin < out.end)
      k.gate_up({.gate = gate,
                 .up = up,
                 .x = in,
                 .n_rows = n_rows(),
                 .act = op.activation == Activation::silu ? Gate::silu : Gate::gelu_tanh,
                 .out = x.act_buffer(op.out),
                 .out_begin = out.begin,
                 .out_end = out.end,
                 .gate_bias = x.vector(op.gate_bias),
                 .up_bias = x.vector(op.up_bias)});
  }

  void operator()(const ExpertsOp& op);  // experts.cc
  // Its parts, between barriers.
  void score_experts(const ExpertsOp& op);
  void choose_experts(const ExpertsOp& op, Range rows);
  void list_experts(const ExpertsOp& op);
  void fill_places(const ExpertsOp& op);
  void multiply_gate_up(const ExpertsOp& op);
  void multiply_down(const ExpertsOp& op);
  void add_experts(const ExpertsOp& op);
  PackedMatrix expert_matrix(WeightId id, std::uint32_t expert) const;

  void operator()(const HeadOp& op) {
    if (n_outputs() == 0) return;
    const std::uint32_t cols = x.program_.buffers[op.in].width;
    // The wanted rows, normed: in the hidden area, since they need not be neighbours in the step.
    auto* hidden = reinterpret_cast<float*>(at(x.space_.hidden_out));
    const Range mine = my_rows(n_outputs());
    for (std::uint32_t i = mine.begin; i < mine.end; ++i)
      k.rms_norm(x.floats(op.in) + std::uint64_t{x.block_.outputs[i].row} * cols, x.vector(op.norm.weight),
                 op.norm.eps, cols, hidden + std::uint64_t{i} * cols);
    pool.barrier();
    const PackedMatrix w = x.matrix(op.weight);
    const ActView in =
        input(hidden, cols, n_outputs(), cols, {}, input_format(x.program_, x.mode_, {op.weight}));
    const Range out = scaled(split_range(groups_of(w.rows, kRowGroup), thread, n_threads), kRowGroup, w.rows);
    if (out.begin >= out.end) return;
    float* logits = x.floats(op.logits);
    k.matmul({.w = w,
              .x = in,
              .n_rows = n_outputs(),
              .y = logits,
              .y_stride = w.rows,
              .out_begin = out.begin,
              .out_end = out.end});
    for (std::uint32_t i = 0; i < n_outputs(); ++i) {
      float* row = logits + std::uint64_t{i} * w.rows + out.begin;
      if (op.scale != 1.0f) k.scale(op.scale, out.end - out.begin, row);
      if (op.softcap > 0) k.softcap(op.softcap, out.end - out.begin, row);
    }
  }

  // Of its sequence's: other threads may be drawing for rows before it.
  bool is_last_sample(std::uint32_t output) const {
    const auto& outputs = x.block_.outputs;
    for (std::size_t i = output + 1; i < outputs.size() && outputs[i].sequence == outputs[output].sequence;
         ++i)
      if (has(outputs[i].want, Want::sample)) return false;
    return true;
  }
  void operator()(const SampleOp& op) {
    const std::uint32_t vocab = x.program_.vocab_size;
    auto* candidates =
        reinterpret_cast<Candidate*>(at(x.space_.candidates + thread * x.space_.candidates_stride));
    const Range mine = my_rows(n_outputs());
    for (std::uint32_t i = mine.begin; i < mine.end; ++i) {
      const StepOutput& out = x.block_.outputs[i];
      x.sampled_[i] = -1;
      if (!has(out.want, Want::sample)) continue;
      const std::uint32_t slot = x.block_.sequences[out.sequence].slot;
      const std::int32_t position = x.block_.positions[out.row];
      std::span<float> logits(x.floats(op.logits) + std::uint64_t{i} * vocab, vocab);
      const SampleInput input{
          logits, {x.history(slot), static_cast<std::size_t>(position) + 1}, position + 1, out.mask};
      x.sampled_[i] =
          sample(k, out.sampling, input, {candidates, x.space_.candidates_stride / sizeof(Candidate)});
      // The next step may be in flight already: its row for this slot counts for nothing, but must be able
      // to run beside the others.
      if (is_last_sample(i)) x.keep_sample(slot, x.sampled_[i] == kNoNumber ? 0 : x.sampled_[i]);
    }
  }

  // ---- to and from other parts: their rows are there since the step began, and counted when it ends
  void operator()(const ReceiveOp& op) {
    copy_rows(x.from_->of_step(x.block_.number), x.floats(op.out), x.program_.buffers[op.out].width);
  }
  void operator()(const SendOp& op) {
    copy_rows(x.floats(op.in), x.to_->of_step(x.block_.number), x.program_.buffers[op.in].width);
  }
  // ---- between the ranks of a stage
  // A thread gives its rows, and takes the same rows of the others.
  void operator()(const SumOp& op) {
    const LinkBox& box = x.bindings_.links[op.link];
    const std::uint64_t number = box.number_of(x.block_.number, op.turn);
    const std::uint32_t width = x.program_.buffers[op.in].width, rank = x.program_.rank;
    copy_rows(x.floats(op.in), box.of_writer(number, rank), width);
    const Range rows = my_rows(n_rows());
    for (std::uint32_t r = rows.begin; r < rows.end; ++r) x.tell(box, rank, r, number + 1);
    for (std::uint32_t r = rows.begin; r < rows.end; ++r) sum_row(op, box, number, r, width);
  }
  void sum_row(const SumOp& op, const LinkBox& box, std::uint64_t number, std::uint32_t row,
               std::uint32_t width) {
    float* sum = x.floats(op.in) + std::uint64_t{row} * width;
    for (std::uint32_t w = 0; w < box.writers; ++w) {
      const float* theirs = box.of_writer(number, w) + std::uint64_t{row} * width;
      x.wait_for_rank(box, w, row, number + 1);
      if (w == 0)
        std::copy_n(theirs, width, sum);
      else
        k.add(theirs, width, sum);
    }
    if (op.bias != kNoWeight) k.add(x.vector(op.bias), width, sum);
    if (op.post_norm) k.rms_norm(sum, x.vector(op.post_norm.weight), op.post_norm.eps, width, sum);
    float* out = x.floats(op.out) + std::uint64_t{row} * width;
    if (op.residual == kNoBuffer) return void(std::copy_n(sum, width, out));
    const float* residual = x.floats(op.residual) + std::uint64_t{row} * width;
    if (out != residual) std::copy_n(residual, width, out);
    k.add(sum, width, out);
  }
  void operator()(const GatherOp& op) {
    const LinkBox& box = x.bindings_.links[op.link];
    const std::uint64_t number = x.block_.number;
    const std::uint32_t mine = x.program_.buffers[op.in].width, all = x.program_.vocab_size;
    const Range rows = my_rows(n_outputs());
    for (std::uint32_t r = rows.begin; r < rows.end; ++r) {
      std::copy_n(x.floats(op.in) + std::uint64_t{r} * mine, mine,
                  box.of_step(number) + std::uint64_t{r} * all + op.first_col);
      for (std::uint32_t c = 0; c < box.chunks; ++c) x.tell(box, x.program_.rank, r, number + 1, c);
    }
    for (std::uint32_t r = rows.begin; op.out != kNoBuffer && r < rows.end; ++r) {
      for (std::uint32_t w = 0; w < box.writers; ++w)
        for (std::uint32_t c = 0; c < box.chunks; ++c) x.wait_for_rank(box, w, r, number + 1, c);
      std::copy_n(box.of_step(number) + std::uint64_t{r} * all, all,
                  x.floats(op.out) + std::uint64_t{r} * all);
    }
  }
  void copy_rows(const float* from, float* to, std::uint64_t width) const {
    const Range rows = my_rows(n_rows());
    std::copy(from + rows.begin * width, from + rows.end * width, to + rows.begin * width);
  }
};

}  // namespace steelyard::cpu
