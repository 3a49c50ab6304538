#include "text/chat_template.h"

#include "base/error.h"
#include "base/readable.h"
#include "base/utf8.h"
#include "jinja/ast.h"
#include "jinja/interpreter.h"
#include "jinja/parser.h"
#include "jinja/value.h"

namespace steelyard {

namespace {

constexpr std::size_t kMaxSource = std::size_t{4} << 20;

[[noreturn]] void rethrow(const jinja::Failure& failure) {
  constexpr std::size_t kLongest = 600;
  const std::string message = readable(failure.message, kLongest);
  if (failure.exact) throw Error(ErrorKind::bad_input, message);
  throw_error(failure.cancelled ? ErrorKind::cancelled : ErrorKind::bad_input, "chat template, line {}: {}",
              failure.line, message);
}

}  // namespace

struct ChatTemplate::Impl {
  std::string source;
  std::unique_ptr<jinja::Template> tree;
};

ChatTemplate::ChatTemplate(std::string_view source) {
  if (source.size() > kMaxSource)
    throw_error(ErrorKind::bad_input, "a chat template of {} bytes is too large (at most {})", source.size(),
                kMaxSource);
  auto impl = std::make_unique<Impl>();
  impl->source = source;
  try {
    impl->tree = jinja::parse(valid_utf8(source));
  } catch (const jinja::Failure& failure) {
    rethrow(failure);
  }
  impl_ = std::move(impl);
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

const std::string& ChatTemplate::source() const { return impl_->source; }

std::string ChatTemplate::render(const nlohmann::ordered_json& vars, const TemplateLimits& limits,
                                 std::optional<std::time_t> now) const {
  if (!vars.is_object())
    throw_error(ErrorKind::bad_input, "a chat template's variables must be a JSON object");
  try {
    const jinja::Limits spend{limits.output_bytes, limits.steps, limits.memory_bytes, limits.time,
                              limits.stop};
    jinja::Interpreter interpreter(*impl_->tree, vars, spend, now.value_or(std::time(nullptr)));
    return interpreter.render();
  } catch (const jinja::Failure& failure) {
    rethrow(failure);
  }
}

}  // namespace steelyard
