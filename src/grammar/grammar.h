// A language of byte strings, context-free, for answers to be held to: rules made of bytes, sequences,
// choices and repetitions, compiled to the nodes of a pushdown automaton. GrammarBuilder makes one,
// json_schema.h and gbnf.h write them, matcher.h runs them.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace steelyard {

using ByteSet = std::bitset<256>;

// Immutable; thread-safe.
class Grammar {
 public:
  static constexpr std::uint32_t kNever = 0x3fffffff;
  static constexpr std::uint32_t kMostDepth = 256;  // of calls within calls, in an answer
  // A rule's nodes lead from its start to `end`.
  struct Node {
    enum class Kind : std::uint8_t { end, bytes, call, split };
    Kind kind = Kind::end;
    std::uint32_t a = 0;     // bytes: index of the set; call: the rule; split: one way on
    std::uint32_t next = 0;  // split: the other way
  };
  const Node& node(std::uint32_t i) const { return nodes_[i]; }
  bool has(const Node& node, std::uint8_t byte) const { return sets_[node.a][byte]; }
  std::uint32_t start(std::uint32_t rule) const { return starts_[rule]; }
  std::uint32_t root() const { return root_; }  // a rule
  // The fewest bytes, and the least depth of calls, from a node to its rule's end; kNever: there is no way.
  std::uint32_t bytes_left(std::uint32_t node) const { return bytes_left_[node]; }
  std::uint32_t depth_left(std::uint32_t node) const { return depth_left_[node]; }

 private:
  friend class GrammarBuilder;
  std::vector<Node> nodes_;
  std::vector<ByteSet> sets_;
  std::vector<std::uint32_t> starts_, bytes_left_, depth_left_;
  std::uint32_t root_ = 0;
};

// Expressions are numbers, valid in their builder. Every method throws Error(bad_input) when the grammar
// grows beyond what is useful, so that no request takes much time or memory. One thread.
class GrammarBuilder {
 public:
  using Expr = std::uint32_t;
  using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // of code points, both ends included
  static constexpr std::uint32_t kUnbounded = 0xffffffff;

  Expr empty();
  Expr bytes(const ByteSet& set);
  Expr bytes(std::string_view any_of);
  Expr literal(std::string_view text);
  // One character, in UTF-8; surrogates never.
  Expr character(Ranges ranges);
  Expr sequence(std::span<const Expr> parts);
  Expr sequence(std::initializer_list<Expr> parts) { return sequence({parts.begin(), parts.size()}); }
  Expr choice(std::span<const Expr> parts);  // of none: nothing fits
  Expr choice(std::initializer_list<Expr> parts) { return choice({parts.begin(), parts.size()}); }
  Expr repeat(Expr what, std::uint32_t least, std::uint32_t most);
  Expr optional(Expr what) { return repeat(what, 0, 1); }

  // Rules may be used before they are defined.
  std::uint32_t new_rule();
  void define(std::uint32_t rule, Expr body) { bodies_[rule] = body + 1; }
  Expr call(std::uint32_t rule);

  // Throws Error(bad_input) for a rule that is used and not defined, for one that begins with itself, and
  // when nothing fits at all.
  Grammar finish(std::uint32_t root);

 private:
  enum class Kind : std::uint8_t { empty, bytes, sequence, choice, repeat, call };
  struct Part {
    Kind kind = Kind::empty;
    std::uint32_t a = 0, least = 0, most = 0;  // set or rule or expression
    std::vector<Expr> parts;
  };
  Expr add(Part part);
  std::uint32_t add_set(const ByteSet& set);
  std::uint32_t add_node(Grammar::Node node);
  std::uint32_t emit(Expr expr, std::uint32_t next, std::uint32_t depth);
  std::uint32_t emit_choice(const std::vector<Expr>& parts, std::uint32_t next, std::uint32_t depth);
  std::uint32_t emit_repeat(const Part& part, std::uint32_t next, std::uint32_t depth);
  void measure(std::vector<std::uint32_t>& left, bool depth) const;
  void refuse_left_recursion() const;
  std::vector<std::uint32_t> first_calls(std::uint32_t rule) const;

  std::vector<Part> exprs_;
  std::vector<std::uint32_t> bodies_;  // by rule: the expression + 1; 0: not defined
  Grammar g_;
  std::size_t size_ = 0;     // parts of all expressions
  std::size_t emitted_ = 0;  // expressions turned into nodes
};

}  // namespace steelyard
