// Which tokens of a vocabulary an answer may go on with. A TokenTrie is a vocabulary's bytes as a tree, made
// once a model; TokenConstraint holds one answer to one grammar.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/grammar.h"
#include "grammar/matcher.h"

namespace steelyard {

// Immutable; thread-safe.
class TokenTrie {
 public:
  // `piece`: a token's bytes, valid for as long as this lives; empty for those that no text is made of.
  TokenTrie(std::uint32_t n_tokens, const std::function<std::string_view(std::int32_t id)>& piece,
            const std::function<bool(std::int32_t id)>& is_end);

  struct Node {
    std::uint32_t end;          // the next node that isn't beneath this one
    std::uint32_t first_token;  // its tokens: tokens()[first_token … the next node's)
    std::uint32_t depth : 24, byte : 8;
  };
  // In preorder, one more at the end.
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::span<const std::int32_t> end_tokens() const { return ends_; }
  std::string_view piece(std::int32_t id) const { return pieces_[static_cast<std::size_t>(id)]; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(pieces_.size()); }
  std::uint32_t depth() const { return depth_; }

 private:
  std::vector<std::string_view> pieces_;
  std::vector<Node> nodes_;
  std::vector<std::int32_t> tokens_, ends_;
  std::uint32_t depth_ = 0;
};

// One thread.
class TokenConstraint {
 public:
  // `after`: an answer is free until it has said this; then white space may come before what the grammar
  // says. Empty: held from the beginning.
  TokenConstraint(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie,
                  std::string after = {});

  // The tokens that may come next, bit by bit, the end tokens where the answer is whole; valid until the
  // next call. nullptr: no token at all may.
  const std::uint32_t* mask();
  // Those of them after which at most `bytes` are needed until the answer is whole; where there are none,
  // those that need the fewest.
  const std::uint32_t* mask_within(std::uint32_t bytes);
  // Bytes that are needed after `token`, which may come next.
  std::uint32_t bytes_left_after(std::int32_t token);
  // `text`: the token's, as it reaches the reader; control tokens may have one.
  void accept(std::int32_t token, std::string_view text);
  bool complete() const { return !waiting_ && matcher_.complete(state_); }
  bool ended() const { return !waiting_ && matcher_.ended(state_); }  // nothing may follow

 private:
  using Mask = std::vector<std::uint32_t>;
  const std::uint32_t* compute(Mask& mask);
  void walk(Mask& mask);
  void accept_waiting(std::string_view text);

  std::shared_ptr<const TokenTrie> trie_;
  Matcher matcher_;
  Matcher::State state_;
  std::string after_, seen_;
  bool waiting_, any_ = false;
  std::unordered_map<Matcher::State, Mask> masks_;  // the latest few
  std::list<Matcher::State> order_;
  std::vector<Matcher::State> path_;
  Mask other_;
};

}  // namespace steelyard
