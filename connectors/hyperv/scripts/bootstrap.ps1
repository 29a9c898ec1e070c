# deskyard-script: bootstrap 1
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
$v = 0
$code = 0
try {
    $reader = New-Object System.IO.StreamReader([Console]::OpenStandardInput(), [Text.Encoding]::UTF8)
    $told = $reader.ReadToEnd()
    $document = ConvertFrom-Json -InputObject $told
    $v = $document.v
    $result = & ([ScriptBlock]::Create($document.s)) $document.p
    $answer = @{ ok = $true; v = $v; r = $result }
} catch {
    $code = 3
    $answer = @{
        ok = $false
        v = $v
        id = [string]$_.FullyQualifiedErrorId
        hresult = [int]$_.Exception.GetBaseException().HResult
        msg = [string]$_.Exception.Message
        at = [string]$_.ScriptStackTrace
    }
}
$text = '<<J ' + (ConvertTo-Json -InputObject $answer -Depth 8 -Compress) + ' J>>'
$bytes = [Text.Encoding]::UTF8.GetBytes($text)
$output = [Console]::OpenStandardOutput()
$output.Write($bytes, 0, $bytes.Length)
$output.Flush()
exit $code
