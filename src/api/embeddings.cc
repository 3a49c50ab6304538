#include "api/embeddings.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "api/fields.h"

namespace steelyard::api {
namespace {

class EmbedFormat final : public AnswerFormat {
 public:
  EmbedFormat(EmbedForm form, AnswerFacts facts, const EmbedRequest& r, std::vector<std::size_t> dropped)
      : form_(form),
        facts_(std::move(facts)),
        dimensions_(r.dimensions),
        normalise_(r.normalise),
        base64_(r.base64),
        dropped_(std::move(dropped)) {}
  const char* stream_type() const override { return "application/json"; }
  Dialect dialect() const override { return form_ == EmbedForm::openai ? Dialect::openai : Dialect::native; }
  std::string piece(const Piece&) override { return {}; }  // never streamed
  std::string closing(std::span<const Choice>) override { return {}; }
  std::string failure(std::string_view) override { return {}; }
  Reply whole(std::span<const Choice> choices) override {
    Json j = form_ == EmbedForm::openai ? openai(choices)
             : form_ == EmbedForm::one  ? one(choices.front())
                                        : list(choices);
    Json cut = Json::array();
    for (std::size_t i = 0; i < dropped_.size(); ++i)
      if (dropped_[i] > 0) cut.push_back({{"index", i}, {"dropped_tokens", dropped_[i]}});
    if (!cut.empty()) j["steelyard"] = {{"truncated", cut}};
    return {.body = dump(j)};
  }

 private:
  std::vector<float> values(const Choice& c) const {
    return finished_embedding(c.embedding, dimensions_, normalise_);
  }
  Json one(const Choice& c) const { return {{"embedding", values(c)}}; }
  Json list(std::span<const Choice> choices) const {
    Json all = Json::array();
    std::uint64_t tokens = 0;
    std::int64_t longest = 0;
    for (const Choice& c : choices) {
      all.push_back(values(c));
      tokens += c.answer.prompt_tokens;
      longest = std::max(longest, c.answer.total_ns);
    }
    return {{"model", facts_.model},
            {"embeddings", std::move(all)},
            {"total_duration", longest + facts_.load_ns},
            {"load_duration", facts_.load_ns},
            {"prompt_eval_count", tokens}};
  }
  Json openai(std::span<const Choice> choices) const {
    Json data = Json::array();
    std::uint64_t tokens = 0;
    for (const Choice& c : choices) {
      const std::vector<float> v = values(c);
      data.push_back({{"object", "embedding"},
                      {"index", data.size()},
                      {"embedding", base64_ ? Json(base64_of(v)) : Json(v)}});
      tokens += c.answer.prompt_tokens;
    }
    return {{"object", "list"},
            {"data", std::move(data)},
            {"model", facts_.model},
            {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
  }

  EmbedForm form_;
  AnswerFacts facts_;
  std::uint32_t dimensions_;
  bool normalise_, base64_;
  std::vector<std::size_t> dropped_;
};

}  // namespace

std::vector<float> finished_embedding(std::span<const float> raw, std::uint32_t dimensions, bool normalise) {
  if (dimensions > 0) raw = raw.first(std::min<std::size_t>(raw.size(), dimensions));
  std::vector<float> out(raw.begin(), raw.end());
  double sum = 0;
  for (const float x : out) sum += double{x} * x;
  if (normalise && sum > 0)
    for (float& x : out) x = static_cast<float>(x / std::sqrt(sum));
  return out;
}

std::string base64_of(std::span<const float> values) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> bytes(values.size() * sizeof(float));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t bits = 0;
    for (std::size_t b = 0; b < 3; ++b) bits = bits << 8 | (b < n ? bytes[i + b] : 0u);
    for (std::size_t d = 0; d < 4; ++d) out += d <= n ? kDigits[bits >> (18 - 6 * d) & 63] : '=';
  }
  return out;
}

std::unique_ptr<AnswerFormat> embed_format(EmbedForm form, AnswerFacts facts, const EmbedRequest& request,
                                           std::vector<std::size_t> dropped) {
  return std::make_unique<EmbedFormat>(form, std::move(facts), request, std::move(dropped));
}

Reply no_embeddings(EmbedForm form, const AnswerFacts& facts) {
  if (form == EmbedForm::one) return {.body = dump({{"embedding", Json::array()}})};
  return {.body = dump({{"model", facts.model},
                        {"embeddings", Json::array()},
                        {"total_duration", facts.load_ns},
                        {"load_duration", facts.load_ns},
                        {"prompt_eval_count", 0}})};
}

}  // namespace steelyard::api
