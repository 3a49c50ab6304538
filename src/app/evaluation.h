// A text judged by a model: perplexity, and how far the logits are from saved ones. For eval and quantize.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "app/direct.h"
#include "app/npy.h"
#include "engine/loaded_model.h"
#include "text/vocabulary.h"

namespace steelyard {

// What one pass over the text gives, row by row. Divergences are Kullback-Leibler's, KL(reference ‖ ours) of
// the softmaxes, in nat.
struct Score {
  double negative_log_likelihood = 0;  // of the tokens after the first, nat
  std::uint64_t predicted = 0;
  std::vector<double> divergences;
  std::uint64_t same_top = 0;

  double perplexity() const;
  double mean_divergence() const;
  // The smallest value that at least this share of the rows don't exceed.
  double divergence_quantile(double share) const;
  // Throws Error(internal) for logits that are no finite numbers.
  void add(std::span<const float> ours, std::optional<std::span<const float>> reference,
           std::optional<std::int32_t> next);
};

// A text and how it is evaluated: as a whole, or in windows of so many tokens that know nothing of each
// other.
struct Text {
  std::vector<TokenId> ids;    // whole windows; each begins with BOS where the model wants one
  std::uint32_t window = 0;    // tokens of each
  std::uint32_t unjudged = 0;  // at the start of each: too little before them to judge by

  std::size_t windows() const { return ids.size() / window; }
};

struct TextOptions {
  std::string file;          // "-": standard input
  std::uint32_t tokens = 0;  // the first so many; 0: all
  std::uint32_t window = 0;  // 0: as a whole where that fits
};
// Reads the text and how many tokens the model must hold at once: the text as a whole where that fits, else
// windows. Sets options.context where it isn't set.
Text read_text(const TextOptions& wanted, const std::filesystem::path& model, ModelOptions& options);

// One pass over the text. `save` gets every row of logits, `reference` has them of another model. Ctrl-C
// throws Error(cancelled).
Score run_text(DirectModel& model, const Text& text, NpyWriter* save, const NpyFile* reference);

}  // namespace steelyard
