#include "api/handler_parts.h"

#include <algorithm>

#include "base/error.h"
#include "engine/answer_parser.h"
#include "engine/chat.h"
#include "engine/engine.h"
#include "engine/fit_chat.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"

namespace steelyard::api {
namespace {

// Whether a mark is a control token of this model, which is no text else.
bool shows_control_text(const AnswerSyntax* syntax, const LoadedModel& model) {
  if (!syntax || !syntax->any()) return false;
  return std::ranges::any_of(syntax->marks(), [&](std::string_view mark) {
    return model.tokenizer().control_token_at(mark) == mark.size();
  });
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

}  // namespace

Reply json_reply(const Json& json) { return {.body = dump(json)}; }

Handled reply_only(Reply reply) {
  Handled h;
  h.reply = std::move(reply);
  return h;
}

// Names as JSON strings, so that none writes a line of its own into the log.
std::string ignored_note(const Options& o) {
  constexpr std::size_t kMost = 8, kLongest = 40;
  std::string text;
  for (std::size_t i = 0; i < std::min(o.ignored.size(), kMost); ++i)
    text += (i ? ", " : "ignored options: ") +
            Json(o.ignored[i].substr(0, kLongest)).dump(-1, ' ', true, Json::error_handler_t::replace);
  return o.ignored.size() > kMost ? text + ", \u2026" : text;
}

AnswerFacts facts_of(const CommonRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts;
  facts.model = r.model;
  facts.load_ns = lease.load_ns;
  if (r.logprobs >= 0) facts.tokenizer = &lease.model->tokenizer();
  return facts;
}

void check_abilities(const LoadedModel& model, const ChatInput& input) {
  if (!model.chat_template()) return;
  const TemplateAbilities able = template_abilities(model.chat_template()->source());
  const std::string name = model.path().stem().string();
  if (input.think.value_or(false) && !able.thinking)
    throw_error(ErrorKind::bad_input, "\"{}\" does not support thinking", name);
  if (input.tools.is_array() && !able.tools)
    throw_error(ErrorKind::bad_input, "\"{}\" does not support tools", name);
}

AnswerSyntax syntax_of(const LoadedModel& model, const ChatInput& input, const std::vector<TokenId>& prompt) {
  constexpr std::size_t kLast = 16;  // tokens in which thoughts can be opened
  if (!model.chat_template()) return {};
  const std::vector<TokenId> end(prompt.end() - static_cast<std::ptrdiff_t>(std::min(prompt.size(), kLast)),
                                 prompt.end());
  return answer_syntax(model.chat_template()->source(), input.tools, model.tokenizer().decode(end, true));
}

std::vector<TokenId> chat_prompt(const ChatRequest& r, const LoadedModel& model, AnswerFacts& facts) {
  check_abilities(model, r.input);
  std::vector<TokenId> prompt;
  if (r.truncate) {
    const std::size_t context = r.options.num_ctx ? r.options.num_ctx : model.engine().context();
    FittedChat fitted =
        model.fit_chat(r.input, answer_reserve(r.options.num_predict, context), r.options.num_ctx);
    facts.dropped_messages = fitted.dropped_messages;
    prompt = std::move(fitted.prompt);
  } else {
    prompt = model.encode_chat(r.input);
  }
  facts.syntax = syntax_of(model, r.input, prompt);
  facts.syntax.one_call = r.one_call;
  return prompt;
}

// Member by member: in a braced list gcc 12 destroys default members twice when a later one throws.
Handled generation(std::unique_ptr<AnswerFormat> format, const CommonRequest& r,
                   const ModelManager::Lease& lease, std::vector<std::vector<TokenId>> prompts) {
  Handled h;
  h.format = std::move(format);
  h.model = lease.model;
  h.alike = r.choices;
  h.stream = r.stream;
  const AnswerSyntax* syntax = h.format->syntax();
  const bool control_text = shows_control_text(syntax, *lease.model);
  for (std::vector<TokenId>& prompt : prompts)
    for (std::uint32_t i = 0; i < r.choices; ++i) {
      EngineRequest& request = h.requests.emplace_back();
      static_cast<AnswerOptions&>(request) = r.options.over(lease.model->answer_defaults());
      request.sampling.seed += i;  // or they would all be the same
      request.context = r.options.num_ctx;
      request.prompt = prompt;
      request.logprobs = r.logprobs;
      request.biases = r.biases;
      request.grammar = r.grammar;
      if (r.grammar && syntax && syntax->thinking) request.grammar_after = syntax->think_close;
      request.control_text = control_text;
    }
  return h;
}

Handled generation(std::unique_ptr<AnswerFormat> format, const CommonRequest& r,
                   const ModelManager::Lease& lease, std::vector<TokenId> prompt) {
  std::vector<std::vector<TokenId>> prompts;
  prompts.push_back(std::move(prompt));
  return generation(std::move(format), r, lease, std::move(prompts));
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
    const int low = high < 0 ? -1 : hex_value(text[i + 2]);
    out += low < 0 ? text[i] : static_cast<char>(16 * high + low);
    if (low >= 0) i += 2;
  }
  return out;
}

}  // namespace steelyard::api
