// Embeddings: Ollama's two paths and OpenAI's. Inputs run beside everything else in the engine's own steps,
// some at once, and are told in their order.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "api/embeddings.h"
#include "api/handler_parts.h"
#include "api/routes.h"
#include "base/error.h"
#include "engine/engine.h"
#include "engine/errors.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

// As long as the sequences that run at once, and some that wait so that no place stays empty.
std::uint32_t at_once(const LoadedModel& model) { return 2 * model.options().slots; }

// A text that doesn't fit loses its end where the request says so; an end token stays the last.
std::size_t truncate(std::vector<TokenId>& ids, std::size_t most, const Tokenizer& tokenizer) {
  if (ids.size() <= most) return 0;
  const std::size_t dropped = ids.size() - most;
  const TokenId last = ids.back();
  ids.resize(most);
  if (tokenizer.is_end(last)) ids.back() = last;
  return dropped;
}

Handled prepare_embed(EmbedForm form, const EmbedRequest& r, const ModelManager::Lease& lease) {
  const LoadedModel& model = *lease.model;
  const Pooling pooling = model.pooling();
  if (r.dimensions > model.config().n_embd)
    throw_error(ErrorKind::bad_input, "\"dimensions\" is {}, but the model's embeddings have {}",
                r.dimensions, model.config().n_embd);
  if (r.texts.empty() && r.ids.empty()) return reply_only(no_embeddings(form, facts_of(r, lease)));
  std::vector<std::vector<TokenId>> prompts = r.ids;
  for (const std::string& text : r.texts) prompts.push_back(model.encode_text(text));
  const std::size_t context = model.engine().context();
  const std::size_t most =
      (r.options.num_ctx ? std::min<std::size_t>(r.options.num_ctx, context) : context) - 1;
  std::vector<std::size_t> dropped;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].size() > most && !r.truncate)
      throw TooLong(
          fmt::format("text {} has {} tokens, but an embedding may have {}: shorten it, use a larger "
                      "context, or let it be cut with \"truncate\": true",
                      i, prompts[i].size(), most));
    dropped.push_back(truncate(prompts[i], most, model.tokenizer()));
  }
  auto format = embed_format(form, facts_of(r, lease), r, std::move(dropped));
  Handled h = generation(std::move(format), r, lease, std::move(prompts));
  for (EngineRequest& request : h.requests) request.pooling = pooling;
  h.at_once = at_once(model);
  return h;
}

template <EmbedForm form>
Handled embed(const Services&, const Call& call) {
  EmbedRequest parsed = form == EmbedForm::list  ? parse_embed(call.body)
                        : form == EmbedForm::one ? parse_embeddings(call.body)
                                                 : parse_openai_embeddings(call.body);
  return when_loaded(
      form == EmbedForm::openai ? Dialect::openai : Dialect::native,
      std::make_shared<const EmbedRequest>(std::move(parsed)),
      [](const EmbedRequest& r, const ModelManager::Lease& lease) { return prepare_embed(form, r, lease); });
}

}  // namespace

std::span<const Route> embed_routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/api/embed", Lane::work, embed<EmbedForm::list>},
      {"POST", "/api/embeddings", Lane::work, embed<EmbedForm::one>},
      {"POST", "/v1/embeddings", Lane::work, embed<EmbedForm::openai>},
  };
  return kRoutes;
}

}  // namespace steelyard::api
