"""The contract as frontends take it: GraphQL Code Generator makes a typed client of it, and TypeScript compiles it."""

import re
from pathlib import Path

from tests.app.caller import OPERATIONS
from tests.node import FOLDER, run

GRAPHQL = OPERATIONS.parent
CONFIG = re.compile(r"^```ts\n(import type \{ CodegenConfig \}.*?)^```", re.MULTILINE | re.DOTALL)
CODEGEN = FOLDER / "node_modules" / "@graphql-codegen" / "cli" / "cjs" / "bin.js"
TSC = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
# What a client may write, and what its compiler must not let pass.
USE = """
import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import {
  type BannersQuery, CampaignSendDocument, type CampaignSendMutation, CampaignStatus, SegmentDocument,
} from "./muster";

type Data<Document> = Document extends TypedDocumentNode<infer Answer, infer _> ? Answer : never;
type Asked<Document> = Document extends TypedDocumentNode<infer _, infer Variables> ? Variables : never;

export const asked: Asked<typeof CampaignSendDocument> = { input: { id: "cmp_1" } };
// @ts-expect-error: no campaign is named
export const nothing: Asked<typeof CampaignSendDocument> = { input: {} };
// @ts-expect-error: ids are texts
export const wrong: Asked<typeof SegmentDocument> = { id: 1 };

export function status(answer: Data<typeof CampaignSendDocument>): CampaignStatus | undefined {
  return answer.campaignSend.campaign?.status;
}
export function codes(answer: CampaignSendMutation): string[] {
  // @ts-expect-error: a campaign may be null
  answer.campaignSend.campaign.id;
  return answer.campaignSend.userErrors.map((one) => one.code);
}
export function etag(answer: BannersQuery): unknown {
  // @ts-expect-error: nobody asked for it
  return answer.banners.nosuchfield;
}
"""
OPTIONS = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")


def test_a_typed_client_generated_as_documented_compiles(tmp_path: Path) -> None:
    (config,) = CONFIG.findall((GRAPHQL / "README.md").read_text(encoding="utf-8"))
    # The document shows the operations of apps; here are those of consoles too.
    (tmp_path / "codegen.ts").write_text(config.replace("operations/client/", "operations/*/"), encoding="utf-8")
    (tmp_path / "graphql").symlink_to(GRAPHQL)
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    run(CODEGEN, "--config", "codegen.ts", at=tmp_path)
    made = tmp_path / "src" / "muster.ts"
    for file in OPERATIONS.glob("*/*.graphql"):
        assert f"export const {file.stem}Document" in made.read_text(encoding="utf-8")
    use = made.with_name("use.ts")
    use.write_text(USE, encoding="utf-8")
    run(TSC, *OPTIONS, str(use), at=tmp_path)
