// The parser's class; its expressions and statements are in two files. Internal to parser*.cc.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jinja/ast.h"
#include "jinja/lexer.h"

namespace steelyard::jinja {

class Parser {
 public:
  Parser(Template& out, std::vector<Token> tokens) : template_(out), tokens_(std::move(tokens)) {}
  void run();

 private:
  using Names = std::initializer_list<std::string_view>;
  using EType = Expression::Type;
  using SType = Statement::Type;

  // One level of brackets, unary signs or blocks; throws beyond what a template reasonably nests.
  class Nesting {
   public:
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }

   private:
    Parser& parser_;
  };

  // Tokens.
  const Token& now() const { return tokens_[at_]; }
  const Token& after() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  void next() { at_ += at_ + 1 < tokens_.size(); }
  bool is(Token::Type type) const { return now().type == type; }
  bool is_op(std::string_view op) const { return is(Token::Type::op) && now().text == op; }
  bool is_name(std::string_view name) const { return is(Token::Type::name) && now().text == name; }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  void expect_name(std::string_view name);
  std::string expect_any_name();
  [[noreturn]] void stop(std::string message, int line = 0) const;
  [[noreturn]] void unexpected() const;
  std::string describe(const Token& token) const;

  // Nodes.
  ExpressionPtr node(EType type, int line, std::vector<ExpressionPtr> parts = {});
  template <typename... Parts>
  ExpressionPtr make(EType type, int line, Parts... parts) {
    std::vector<ExpressionPtr> list;
    (list.push_back(std::move(parts)), ...);
    return node(type, line, std::move(list));
  }
  void note_depth(Expression& expression, const ExpressionPtr& child) const;
  ExpressionPtr constant(Value value, int line);
  int intern(const std::string& name);
  Value literal(std::string text);

  // Expressions, in order of precedence (parser_expressions.cc).
  ExpressionPtr expression(bool with_condition = true);
  ExpressionPtr condition();
  ExpressionPtr logical_or();
  ExpressionPtr logical_and();
  ExpressionPtr logical_not();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concat();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr number();
  ExpressionPtr list_display();
  ExpressionPtr dict_display();
  ExpressionPtr tuple(bool with_condition, Names end_names, bool parenthesized);
  ExpressionPtr postfix(ExpressionPtr target);
  ExpressionPtr filters(ExpressionPtr target);
  ExpressionPtr filter(ExpressionPtr target, bool start_inline);
  ExpressionPtr test(ExpressionPtr target);
  ExpressionPtr subscript(ExpressionPtr target);
  ExpressionPtr subscribed(ExpressionPtr target);
  ExpressionPtr call(ExpressionPtr target);
  std::unique_ptr<CallArguments> call_arguments();
  std::string dotted_name();
  bool at_tuple_end(Names end_names) const;
  // Items up to the end of the tuple, and whether a comma makes them one.
  std::pair<std::vector<ExpressionPtr>, bool> comma_separated(
      Names end_names, const std::function<ExpressionPtr()>& parse_item);

  // Statements (parser.cc).
  Body subparse(Names end_tags);
  Body block_body(Names end_tags);  // after the opening tag's words, up to one of the end tags
  std::unique_ptr<Statement> statement();
  std::unique_ptr<Statement> for_statement();
  std::unique_ptr<Statement> if_statement();
  std::unique_ptr<Statement> set_statement();
  std::unique_ptr<Statement> macro_statement();
  std::unique_ptr<Statement> call_statement();
  std::unique_ptr<Statement> with_statement();
  std::unique_ptr<Statement> block_statement();
  std::unique_ptr<Statement> body_statement(SType type, std::string_view end);
  std::unique_ptr<Statement> unsupported_statement(const std::string& name);
  std::unique_ptr<Signature> signature();
  std::unique_ptr<Statement> new_statement(SType type) const;
  ExpressionPtr target(bool with_namespace, Names end_names);
  ExpressionPtr target_item(bool with_namespace);
  ExpressionPtr target_name();
  void note_mentions(Signature& signature, std::size_t first_mention) const;

  Template& template_;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int nesting_ = 0;
  int loop_depth_ = 0;  // for loops around this place within the same macro
  std::unordered_map<std::string, int> ids_;
  std::vector<int> mentioned_;  // every variable read so far, by name id
};

}  // namespace steelyard::jinja
