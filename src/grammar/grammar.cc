#include "grammar/grammar.h"

#include <algorithm>
#include <queue>
#include <string>
#include <unordered_set>

#include "base/error.h"
#include "base/utf8.h"

namespace steelyard {
namespace {

constexpr std::size_t kMostNodes = 400'000, kMostParts = 400'000, kMostDepth = 1000;
using Node = Grammar::Node;

[[noreturn]] void too_large() {
  throw_error(ErrorKind::bad_input,
              "the grammar or schema is too large: use smaller counts or fewer alternatives");
}

}  // namespace

// --------------------------------------------------------------------------------------------- expressions

GrammarBuilder::Expr GrammarBuilder::add(Part part) {
  size_ += 1 + part.parts.size();
  if (size_ > kMostParts) too_large();
  exprs_.push_back(std::move(part));
  return static_cast<Expr>(exprs_.size() - 1);
}

std::uint32_t GrammarBuilder::add_set(const ByteSet& set) {
  const auto found = std::find(g_.sets_.rbegin(), g_.sets_.rend(), set);
  if (found != g_.sets_.rend()) return static_cast<std::uint32_t>(g_.sets_.rend() - found - 1);
  if (g_.sets_.size() >= 4096) too_large();
  g_.sets_.push_back(set);
  return static_cast<std::uint32_t>(g_.sets_.size() - 1);
}

GrammarBuilder::Expr GrammarBuilder::empty() { return add({}); }
GrammarBuilder::Expr GrammarBuilder::bytes(const ByteSet& set) {
  return add({.kind = Kind::bytes, .a = add_set(set)});
}
GrammarBuilder::Expr GrammarBuilder::bytes(std::string_view any_of) {
  ByteSet set;
  for (const char c : any_of) set.set(static_cast<unsigned char>(c));
  return bytes(set);
}
GrammarBuilder::Expr GrammarBuilder::literal(std::string_view text) {
  std::vector<Expr> parts;
  for (const char& c : text) parts.push_back(bytes(std::string_view(&c, 1)));
  return sequence(parts);
}
GrammarBuilder::Expr GrammarBuilder::sequence(std::span<const Expr> parts) {
  if (parts.size() == 1) return parts[0];
  return add({.kind = Kind::sequence, .parts = {parts.begin(), parts.end()}});
}
GrammarBuilder::Expr GrammarBuilder::choice(std::span<const Expr> parts) {
  if (parts.size() == 1) return parts[0];
  return add({.kind = Kind::choice, .parts = {parts.begin(), parts.end()}});
}
GrammarBuilder::Expr GrammarBuilder::repeat(Expr what, std::uint32_t least, std::uint32_t most) {
  if (least > most)
    throw_error(ErrorKind::bad_input, "a repetition's least count, {}, is more than its most, {}", least,
                most);
  return add({.kind = Kind::repeat, .a = what, .least = least, .most = most});
}
std::uint32_t GrammarBuilder::new_rule() {
  if (bodies_.size() >= kMostParts) too_large();
  bodies_.push_back(0);
  return static_cast<std::uint32_t>(bodies_.size() - 1);
}
GrammarBuilder::Expr GrammarBuilder::call(std::uint32_t rule) { return add({.kind = Kind::call, .a = rule}); }

namespace {

using Ranges = GrammarBuilder::Ranges;

// Into ranges of code points that are encoded in as many bytes each.
void split_range(std::uint32_t lo, std::uint32_t hi, Ranges& out) {
  static constexpr std::uint32_t kEnds[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, 0x10ffff};
  for (const std::uint32_t end : kEnds) {
    if (lo > end || lo > hi) continue;
    const std::uint32_t last = std::min(hi, end);
    if (end != 0xdfff) out.emplace_back(lo, last);  // surrogates are no characters
    lo = end + 1;
  }
}

ByteSet byte_range(std::uint8_t lo, std::uint8_t hi) {
  ByteSet set;
  for (unsigned b = lo; b <= hi; ++b) set.set(b);
  return set;
}

// The sequences between two encodings of one length, from their byte `at` on.
GrammarBuilder::Expr between(GrammarBuilder& b, std::string_view lo, std::string_view hi) {
  const auto l = static_cast<std::uint8_t>(lo[0]), h = static_cast<std::uint8_t>(hi[0]);
  if (lo.size() == 1) return b.bytes(byte_range(l, h));
  const std::string low(lo.size() - 1, '\x80'), high(lo.size() - 1, '\xbf');
  const auto rest = [&](std::uint8_t first, std::uint8_t last, std::string_view from, std::string_view to) {
    return b.sequence({b.bytes(byte_range(first, last)), between(b, from, to)});
  };
  if (l == h) return rest(l, h, lo.substr(1), hi.substr(1));
  std::vector<GrammarBuilder::Expr> ways;
  const bool whole_low = lo.substr(1) == low, whole_high = hi.substr(1) == high;
  if (!whole_low) ways.push_back(rest(l, l, lo.substr(1), high));
  const int first = l + !whole_low, last = h - !whole_high;
  if (first <= last)
    ways.push_back(rest(static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(last), low, high));
  if (!whole_high) ways.push_back(rest(h, h, low, hi.substr(1)));
  return b.choice(ways);
}

}  // namespace

GrammarBuilder::Expr GrammarBuilder::character(Ranges ranges) {
  Ranges split;
  for (const auto& [lo, hi] : ranges) split_range(lo, hi, split);
  ByteSet ascii;
  std::vector<Expr> ways;
  for (const auto& [lo, hi] : split) {
    if (hi < 0x80) {
      ascii |= byte_range(static_cast<std::uint8_t>(lo), static_cast<std::uint8_t>(hi));
      continue;
    }
    std::string from, to;
    append_utf8(from, lo), append_utf8(to, hi);
    ways.push_back(between(*this, from, to));
  }
  if (ascii.any()) ways.push_back(bytes(ascii));
  return choice(ways);
}

// --------------------------------------------------------------------------------------------------- nodes

std::uint32_t GrammarBuilder::add_node(Node node) {
  if (g_.nodes_.size() >= kMostNodes) too_large();
  g_.nodes_.push_back(node);
  return static_cast<std::uint32_t>(g_.nodes_.size() - 1);
}

// Node 0 ends every rule.
std::uint32_t GrammarBuilder::emit(Expr expr, std::uint32_t next, std::uint32_t depth) {
  if (++emitted_ > 4 * kMostNodes) too_large();  // also where nothing is repeated, which takes no nodes
  if (depth > kMostDepth) throw_error(ErrorKind::bad_input, "the grammar or schema is nested too deeply");
  const Part& part = exprs_[expr];
  switch (part.kind) {
    case Kind::empty:
      return next;
    case Kind::bytes:
      return add_node({Node::Kind::bytes, part.a, next});
    case Kind::call:
      return add_node({Node::Kind::call, part.a, next});
    case Kind::sequence:
      for (auto it = part.parts.rbegin(); it != part.parts.rend(); ++it) next = emit(*it, next, depth + 1);
      return next;
    case Kind::choice:
      return emit_choice(part.parts, next, depth);
    case Kind::repeat:
      return emit_repeat(part, next, depth);
  }
  return next;
}

std::uint32_t GrammarBuilder::emit_choice(const std::vector<Expr>& parts, std::uint32_t next,
                                          std::uint32_t depth) {
  if (parts.empty()) return add_node({Node::Kind::bytes, add_set({}), next});
  std::uint32_t way = emit(parts.back(), next, depth + 1);
  for (std::size_t i = parts.size() - 1; i-- > 0;)
    way = add_node({Node::Kind::split, emit(parts[i], next, depth + 1), way});
  return way;
}

std::uint32_t GrammarBuilder::emit_repeat(const Part& part, std::uint32_t next, std::uint32_t depth) {
  std::uint32_t at = next;
  if (part.most == kUnbounded) {
    at = add_node({Node::Kind::split, next, next});
    const std::uint32_t body = emit(part.a, at, depth + 1);
    g_.nodes_[at].a = body;
  } else {
    for (std::uint32_t i = part.least; i < part.most; ++i)
      at = add_node({Node::Kind::split, emit(part.a, at, depth + 1), next});
  }
  for (std::uint32_t i = 0; i < part.least; ++i) at = emit(part.a, at, depth + 1);
  return at;
}

// Knuth's generalisation of Dijkstra's algorithm: nodes become final in the order of what they have left.
void GrammarBuilder::measure(std::vector<std::uint32_t>& left, bool depth) const {
  const auto& nodes = g_.nodes_;
  left.assign(nodes.size(), Grammar::kNever);
  std::vector<std::uint8_t> final(nodes.size());
  std::vector<std::vector<std::uint32_t>> users(nodes.size());
  for (std::uint32_t i = 0; i < nodes.size(); ++i) {
    const Node& n = nodes[i];
    if (n.kind == Node::Kind::end) continue;
    if (n.kind == Node::Kind::bytes && g_.sets_[n.a].none()) continue;
    users[n.next].push_back(i);
    if (n.kind == Node::Kind::split) users[n.a].push_back(i);
    if (n.kind == Node::Kind::call) users[g_.starts_[n.a]].push_back(i);
  }
  using Entry = std::pair<std::uint32_t, std::uint32_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  queue.emplace(0, 0);
  left[0] = 0;
  while (!queue.empty()) {
    const auto [value, at] = queue.top();
    queue.pop();
    if (final[at]) continue;
    final[at] = 1;
    for (const std::uint32_t user : users[at]) {
      const Node& n = nodes[user];
      std::uint32_t its = left[at];
      if (n.kind == Node::Kind::bytes) its += depth ? 0 : 1;
      if (n.kind == Node::Kind::call) {
        const std::uint32_t body = g_.starts_[n.a];
        if (!final[body] || !final[n.next]) continue;
        its = depth ? std::max(left[body] + 1, left[n.next]) : left[body] + left[n.next];
      }
      its = std::min(its, Grammar::kNever);
      if (its >= left[user]) continue;
      left[user] = its;
      queue.emplace(its, user);
    }
  }
}

// The rules that a rule may call before it has taken a byte.
std::vector<std::uint32_t> GrammarBuilder::first_calls(std::uint32_t rule) const {
  std::vector<std::uint32_t> calls, todo{g_.starts_[rule]};
  std::unordered_set<std::uint32_t> seen;
  while (!todo.empty()) {
    const std::uint32_t at = todo.back();
    todo.pop_back();
    const Node& n = g_.nodes_[at];
    if (n.kind == Node::Kind::bytes || n.kind == Node::Kind::end) continue;
    if (!seen.insert(at).second) continue;
    if (n.kind == Node::Kind::split) todo.push_back(n.a), todo.push_back(n.next);
    if (n.kind == Node::Kind::call) {
      calls.push_back(n.a);
      if (g_.bytes_left_[g_.starts_[n.a]] == 0) todo.push_back(n.next);
    }
  }
  return calls;
}

void GrammarBuilder::refuse_left_recursion() const {
  enum : std::uint8_t { fresh, open, closed };
  std::vector<std::uint8_t> state(g_.starts_.size(), fresh);
  struct Visit {
    std::uint32_t rule;
    std::vector<std::uint32_t> calls;
  };
  for (std::uint32_t first = 0; first < g_.starts_.size(); ++first) {
    if (state[first] != fresh) continue;
    std::vector<Visit> trail;
    state[first] = open;
    trail.push_back({first, first_calls(first)});
    while (!trail.empty()) {
      Visit& top = trail.back();
      if (top.calls.empty()) {
        state[top.rule] = closed;
        trail.pop_back();
        continue;
      }
      const std::uint32_t callee = top.calls.back();
      top.calls.pop_back();
      if (state[callee] == open)
        throw_error(ErrorKind::bad_input,
                    "the grammar or schema has a rule that begins with itself, so it can't be followed");
      if (state[callee] == closed) continue;
      state[callee] = open;
      trail.push_back({callee, first_calls(callee)});
    }
  }
}

Grammar GrammarBuilder::finish(std::uint32_t root) {
  add_node({});
  for (const std::uint32_t body : bodies_) {
    if (body == 0) throw_error(ErrorKind::bad_input, "the grammar uses a rule that it doesn't define");
    g_.starts_.push_back(emit(body - 1, 0, 0));
  }
  g_.root_ = root;
  measure(g_.bytes_left_, false);
  measure(g_.depth_left_, true);
  if (g_.bytes_left_[g_.starts_[root]] >= Grammar::kNever)
    throw_error(ErrorKind::bad_input, "no answer can satisfy the grammar or schema");
  if (g_.depth_left_[g_.starts_[root]] > Grammar::kMostDepth)
    throw_error(ErrorKind::bad_input, "the grammar's or schema's rules are nested too deeply");
  refuse_left_recursion();
  return std::move(g_);
}

}  // namespace steelyard
