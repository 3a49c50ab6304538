#include "device/cuda/host/wire.h"

#include <cstring>
#include <type_traits>

#include "base/error.h"

namespace steelyard::cuda {
namespace {

template <typename Body>
OpBody body_of(const abi::Operation& op) {
  Body body;
  std::memcpy(&body, op.body, sizeof body);
  return body;
}

template <std::size_t... kIndex>
OpBody read_body(const abi::Operation& op, std::index_sequence<kIndex...>) {
  OpBody body;
  const bool known =
      ((op.kind == kIndex && (body = body_of<std::variant_alternative_t<kIndex, OpBody>>(op), true)) || ...);
  if (!known) throw_error(ErrorKind::internal, "program: an op of the unknown kind {}", op.kind);
  return body;
}

abi::Operation write_op(const Op& op) {
  abi::Operation out{op.layer, static_cast<std::uint32_t>(op.body.index()), {}};
  std::visit(
      [&](const auto& body) {
        using Body = std::remove_cvref_t<decltype(body)>;
        static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= sizeof out.body);
        std::memcpy(out.body, &body, sizeof body);
      },
      op.body);
  return out;
}

}  // namespace

abi::Weight to_wire(const WeightSpec& w) { return {w.name.c_str(), w.role, w.layer, w.type, w.rows, w.cols}; }

WeightSpec from_wire(const abi::Weight& w) { return {w.name, w.role, w.layer, w.type, w.rows, w.cols}; }

WireProgram::WireProgram(const Program& p) {
  static_assert(std::is_trivially_copyable_v<StateSpec> && std::is_trivially_copyable_v<RopeSpec>);
  for (const auto& b : p.buffers) buffers_.push_back({b.name.c_str(), b.width, b.rows});
  for (const auto& w : p.weights) weights_.push_back(to_wire(w));
  for (const auto& g : p.groups) groups_.push_back({g.name.c_str(), g.window});
  for (const auto& op : p.ops) ops_.push_back(write_op(op));
  view_ = {p.n_embd,
           p.vocab_size,
           {buffers_.data(), buffers_.size()},
           {weights_.data(), weights_.size()},
           {groups_.data(), groups_.size()},
           {p.states.data(), p.states.size()},
           {p.ropes.data(), p.ropes.size()},
           {ops_.data(), ops_.size()}};
}

Program from_wire(const abi::ProgramView& v) {
  Program p;
  p.n_embd = v.n_embd;
  p.vocab_size = v.vocab_size;
  for (std::uint64_t i = 0; i < v.buffers.size; ++i)
    p.buffers.push_back({v.buffers.data[i].name, v.buffers.data[i].width, v.buffers.data[i].rows});
  for (std::uint64_t i = 0; i < v.weights.size; ++i) p.weights.push_back(from_wire(v.weights.data[i]));
  for (std::uint64_t i = 0; i < v.groups.size; ++i)
    p.groups.push_back({v.groups.data[i].name, v.groups.data[i].window});
  p.states.assign(v.states.data, v.states.data + v.states.size);
  p.ropes.assign(v.ropes.data, v.ropes.data + v.ropes.size);
  for (std::uint64_t i = 0; i < v.ops.size; ++i)
    p.ops.push_back({static_cast<std::int16_t>(v.ops.data[i].layer),
                     read_body(v.ops.data[i], std::make_index_sequence<std::variant_size_v<OpBody>>())});
  check(p);
  return p;
}

}  // namespace steelyard::cuda
